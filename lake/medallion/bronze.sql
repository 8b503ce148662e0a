-- Bronze: every reading as it came, once. The spine feeds it: topics
-- headrace.readings and headrace.events.
CREATE OR REFRESH STREAMING TABLE bronze.readings (
  event_time      TIMESTAMP COMMENT 'when it was measured; null if the message cannot be read',
  ingest_time     TIMESTAMP COMMENT 'when the spine took it',
  path            STRING    COMMENT 'site/line/asset/sensor; empty if the message cannot be read',
  site            STRING,
  line            STRING,
  asset           STRING    COMMENT 'site/line/asset',
  sensor          STRING    COMMENT 'last name of the path',
  value           DOUBLE    COMMENT 'number, or 0 and 1 for a truth value',
  text            STRING,
  unit            STRING    COMMENT 'UCUM, as sent; empty if none was',
  quality         INT       COMMENT 'OPC quality code, 192 is good',
  alive_at        TIMESTAMP COMMENT 'last proof of life, never before event_time',
  historical      BOOLEAN   COMMENT 'sent again or late',
  rescued         STRING    COMMENT 'JSON: what no column takes',
  edge            STRING,
  boot            STRING,
  stream          STRING,
  n               BIGINT    COMMENT 'number of the message per (edge, boot, stream)',
  i               INT       COMMENT 'index of the reading in its message',
  config          STRING    COMMENT 'content hash of the filter set',
  complete_to     TIMESTAMP COMMENT 'nothing of the stream before it is outstanding; null if the sender does not promise',
  kafka_topic     STRING,
  kafka_partition INT,
  kafka_offset    BIGINT,
  kind            STRING    COMMENT 'number, bool, text or null',
  shard           INT       COMMENT 'murmur2(asset) mod 64'
)
COMMENT 'Every reading as it came, once';

-- Bronze: every block of samples that an edge let through, once. The spine feeds
-- it: topic headrace.raw.
CREATE OR REFRESH STREAMING TABLE bronze.raw (
  event_time      TIMESTAMP COMMENT 'time of the first sample; null if the message cannot be read',
  ingest_time     TIMESTAMP COMMENT 'when the spine took it',
  path            STRING    COMMENT 'site/line/asset/sensor; empty if the message cannot be read',
  site            STRING,
  line            STRING,
  asset           STRING    COMMENT 'site/line/asset',
  sensor          STRING    COMMENT 'last name of the path',
  unit            STRING    COMMENT 'UCUM',
  quality         INT       COMMENT 'OPC quality code, 192 is good',
  rate            DOUBLE    COMMENT 'samples per second',
  first_sample    BIGINT    COMMENT 'index of the first sample since the channel began',
  count           INT       COMMENT 'samples',
  format          STRING    COMMENT 'f32le or i16le',
  scale           DOUBLE    COMMENT 'physical value of one count; 1 for f32le',
  samples         BINARY    COMMENT 'as acquired',
  historical      BOOLEAN   COMMENT 'sent again or late',
  rescued         STRING    COMMENT 'JSON: what no column takes',
  edge            STRING,
  boot            STRING,
  stream          STRING,
  n               BIGINT    COMMENT 'number of the message per (edge, boot, stream)',
  i               INT       COMMENT 'index of the block in its message',
  config          STRING    COMMENT 'content hash of what decides at the edge',
  kafka_topic     STRING,
  kafka_partition INT,
  kafka_offset    BIGINT,
  shard           INT       COMMENT 'murmur2(asset) mod 64'
)
COMMENT 'Waveforms that an edge let through, once';
