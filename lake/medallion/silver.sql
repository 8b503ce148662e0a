-- Silver: canonical units, the registry's words of the moment of measurement,
-- expectations. What fails a QUARANTINE rule is in silver.readings_quarantine
-- with the names of all rules that it fails.
CREATE OR REFRESH STREAMING TABLE silver.readings (
  CONSTRAINT schema         EXPECT (path <> '' AND event_time IS NOT NULL AND (kind <> 'null' OR rescued IS NULL))                       ON VIOLATION QUARANTINE,
  CONSTRAINT registered     EXPECT (sensor_id IS NOT NULL)                                                                               ON VIOLATION QUARANTINE,
  CONSTRAINT possible_value EXPECT (kind <> 'number' OR value BETWEEN min_possible AND max_possible)                                     ON VIOLATION QUARANTINE,
  CONSTRAINT sane_clock     EXPECT (event_time BETWEEN TIMESTAMP '2000-01-01' AND ingest_time + INTERVAL 5 MINUTES)                      ON VIOLATION QUARANTINE,
  CONSTRAINT sane_alive     EXPECT (alive_at <= ingest_time + INTERVAL 5 MINUTES AND alive_at <= event_time + INTERVAL 366 DAYS)         ON VIOLATION QUARANTINE,
  CONSTRAINT good_quality   EXPECT (good),
  CONSTRAINT unit           EXPECT (kind <> 'number' OR sensor_unit = '' OR unit = sensor_unit)
)
COMMENT 'Checked readings in canonical units'
AS SELECT
  b.event_time,
  b.alive_at,
  b.ingest_time,
  b.path,
  b.site,
  b.line,
  b.asset,
  b.sensor,
  b.kind,
  CASE WHEN b.kind = 'number' THEN to_canonical(b.value, b.unit, r.unit) ELSE b.value END AS value,
  b.text,
  CASE WHEN b.kind = 'number' THEN canonical_unit(b.unit, r.unit) ELSE b.unit END AS unit,
  b.value AS value_raw,
  b.unit AS unit_raw,
  b.quality,
  (b.quality & 192) = 192 AND b.quality <> 500 AS good, -- 500 is Sparkplug's STALE
  b.historical,
  b.rescued,
  r.sensor_id,
  r.unit AS sensor_unit,
  r.min_possible,
  r.max_possible,
  r.interpolation,
  r.max_hold_us,
  r.owner,
  r.claimed,
  b.edge,
  b.boot,
  b.stream,
  b.n,
  b.i,
  b.config,
  b.complete_to,
  b.kafka_topic,
  b.kafka_partition,
  b.kafka_offset,
  b.shard
FROM STREAM(bronze.readings) b
LEFT JOIN registry.sensors r
  ON r.path = b.path AND b.event_time >= r.valid_from AND b.event_time < r.valid_to; -- the metadata of that moment
