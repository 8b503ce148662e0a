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
  kafka_topic     STRING,
  kafka_partition INT,
  kafka_offset    BIGINT,
  kind            STRING    COMMENT 'number, bool, text or null',
  shard           INT       COMMENT 'murmur2(asset) mod 64'
)
COMMENT 'Every reading as it came, once';
