// Package delta holds the tests that other engines read the tables of
// lake/delta as it means them: delta-rs and DuckDB's delta extension, both from
// PyPI. It has no code of its own.
package delta
