package duck

import (
	"context"
	"strings"
)

// Field is a column of a relation.
type Field struct {
	Name      string
	SQLType   string // as DuckDB writes it
	DeltaType string // as Delta Lake writes it; "" if it has no such type of ours
}

// deltaTypes pairs the types that tables may have with DuckDB's.
func deltaTypes() [][2]string {
	return [][2]string{
		{"string", "VARCHAR"},
		{"long", "BIGINT"},
		{"integer", "INTEGER"},
		{"double", "DOUBLE"},
		{"boolean", "BOOLEAN"},
		{"timestamp", "TIMESTAMP WITH TIME ZONE"},
		{"date", "DATE"},
		{"binary", "BLOB"},
	}
}

// DeltaType is the table type of an SQL type, or "".
func DeltaType(sqlType string) string {
	if elem, ok := strings.CutSuffix(sqlType, "[]"); ok {
		if t := DeltaType(elem); t != "" && !strings.HasPrefix(t, "array<") {
			return "array<" + t + ">"
		}
		return ""
	}
	for _, p := range deltaTypes() {
		if p[1] == sqlType {
			return p[0]
		}
	}
	return ""
}

// SQLType is the SQL type of a table type, or "".
func SQLType(deltaType string) string {
	if elem, ok := strings.CutPrefix(deltaType, "array<"); ok {
		if t := SQLType(strings.TrimSuffix(elem, ">")); t != "" && !strings.HasSuffix(t, "[]") {
			return t + "[]"
		}
		return ""
	}
	for _, p := range deltaTypes() {
		if p[0] == deltaType {
			return p[1]
		}
	}
	return ""
}

// Describe returns the columns that a query would have, without running it.
func (s *Session) Describe(ctx context.Context, query string) ([]Field, error) {
	q := "SELECT column_name, column_type FROM (DESCRIBE " + trim(query) + ")"
	rows, err := s.conn.QueryContext(ctx, q)
	if err != nil {
		return nil, wrap(query, err)
	}
	defer rows.Close()
	var out []Field
	for rows.Next() {
		var f Field
		if err := rows.Scan(&f.Name, &f.SQLType); err != nil {
			return nil, wrap(query, err)
		}
		f.DeltaType = DeltaType(f.SQLType)
		out = append(out, f)
	}
	if err := rows.Err(); err != nil {
		return nil, wrap(query, err)
	}
	return out, nil
}

// Aggregates returns the names of all aggregate functions, in lower case.
func (s *Session) Aggregates(ctx context.Context) (map[string]bool, error) {
	const q = "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type = 'aggregate'"
	rows, err := s.conn.QueryContext(ctx, q)
	if err != nil {
		return nil, wrap(q, err)
	}
	defer rows.Close()
	out := make(map[string]bool)
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, wrap(q, err)
		}
		out[name] = true
	}
	if err := rows.Err(); err != nil {
		return nil, wrap(q, err)
	}
	return out, nil
}

// trim makes a query fit for parentheses.
func trim(query string) string { return strings.TrimRight(strings.TrimSpace(query), "; \t\r\n") }
