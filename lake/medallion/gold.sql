-- Gold: one-minute windows and the latest state.

-- A reading holds from its time of measurement until the next one of its path,
-- and no longer than max_hold after its last proof of life. Of several readings
-- of one moment the last in order counts, so heartbeats prolong what they
-- repeat. Means are weighted with the time that a value held; what is not good
-- ends the value before it and is never averaged.
CREATE OR REFRESH MATERIALIZED VIEW gold.windows_1m
COMMENT 'Time-weighted one-minute windows of numbers'
PARTITIONED BY (shard)
AS
WITH ordered AS (
  SELECT
    path, site, line, asset, sensor, shard, event_time, alive_at, kind, value, good, unit, max_hold_us,
    row_number() OVER (
      PARTITION BY path, event_time
      ORDER BY alive_at DESC, edge DESC, boot DESC, stream DESC, n DESC, i DESC
    ) AS place
  FROM silver.readings
),
moments AS (
  SELECT
    path, site, line, asset, sensor, shard, kind, value, unit,
    kind = 'number' AND good AS counts,
    unix_micros(event_time) AS held_from,
    unix_micros(alive_at) + max_hold_us AS held_at_most,
    lead(unix_micros(event_time)) OVER (PARTITION BY path ORDER BY event_time) AS next_from
  FROM ordered
  WHERE place = 1
),
held AS (
  SELECT
    path, site, line, asset, sensor, shard, kind, value, unit, counts, held_from,
    least(held_at_most, coalesce(next_from, held_at_most)) AS held_to
  FROM moments
),
pieces AS (
  SELECT
    path, site, line, asset, sensor, shard, kind, value, unit, counts, held_from, held_to,
    explode(sequence(
      held_from - pmod(held_from, 60000000),
      greatest(held_from, held_to - 1) - pmod(greatest(held_from, held_to - 1), 60000000),
      60000000
    )) AS window_us
  FROM held
),
weighed AS (
  SELECT
    path, site, line, asset, sensor, shard, kind, value, unit, counts, held_from, window_us,
    least(held_to, window_us + 60000000) - greatest(held_from, window_us) AS micros
  FROM pieces
),
summed AS (
  SELECT
    path, site, line, asset, sensor, shard, window_us,
    sum_in_order(CASE WHEN counts THEN value * micros END, held_from) AS area,
    sum(CASE WHEN counts THEN micros END) AS good_us,
    sum(CASE WHEN kind = 'number' THEN micros END) AS held_us,
    min(CASE WHEN counts THEN value END) AS least_value,
    max(CASE WHEN counts THEN value END) AS greatest_value,
    max_by(value, held_from) FILTER (WHERE counts) AS last_value,
    max_by(unit, held_from) FILTER (WHERE kind = 'number') AS last_unit,
    count(CASE WHEN kind = 'number' AND held_from >= window_us THEN 1 END) AS measured
  FROM weighed
  GROUP BY path, site, line, asset, sensor, shard, window_us
  HAVING count(CASE WHEN kind = 'number' THEN 1 END) > 0
)
SELECT
  path,
  site,
  line,
  asset,
  sensor,
  timestamp_micros(window_us) AS window_start,
  -- rounding must not carry a mean out of its own bounds
  CASE WHEN good_us > 0 THEN greatest(least_value, least(greatest_value, area / good_us)) END AS mean,
  least_value AS min,
  greatest_value AS max,
  last_value AS last,
  measured AS count,
  CAST(held_us AS DOUBLE) / 60000000 AS coverage,
  CASE WHEN held_us > 0 THEN CAST(coalesce(good_us, 0) AS DOUBLE) / held_us END AS good_fraction,
  last_unit AS unit,
  'step' AS interpolation,
  shard
FROM summed;

-- The latest state of each path.
CREATE OR REFRESH STREAMING TABLE gold.twin_state
COMMENT 'Latest checked reading of each path'
PARTITIONED BY (shard);

CREATE FLOW state AS AUTO CDC INTO gold.twin_state
FROM STREAM(silver.readings)
KEYS (path)
SEQUENCE BY struct(event_time, alive_at, edge, boot, stream, n, i)
STORED AS SCD TYPE 1;
