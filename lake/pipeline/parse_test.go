package pipeline

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/headrace/headrace/lake/medallion"
)

func shipped(t testing.TB) []File {
	t.Helper()
	files, err := medallion.Files()
	if err != nil {
		t.Fatal(err)
	}
	var out []File
	for _, f := range files {
		out = append(out, File(f))
	}
	return out
}

func TestParseShipped(t *testing.T) {
	p, err := Parse(shipped(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tab := range p.Tables {
		names = append(names, tab.Name)
	}
	if diff := cmp.Diff([]string{"bronze.readings", "bronze.raw", "gold.windows_1m", "gold.twin_state", "silver.readings"}, names); diff != "" {
		t.Error(diff)
	}
	silver := p.Table("silver.readings")
	var rules []string
	for _, c := range silver.Constraints {
		rules = append(rules, c.Name+":"+string(c.OnViolation))
	}
	if diff := cmp.Diff([]string{"schema:QUARANTINE", "registered:QUARANTINE", "possible_value:QUARANTINE", "sane_clock:QUARANTINE", "sane_alive:QUARANTINE", "good_quality:", "unit:"}, rules); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]StreamRef{{"bronze.readings", "b"}}, silver.Streams); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(silver.Body, "STREAM") || !strings.Contains(silver.Body, "FROM bronze.readings b") {
		t.Errorf("body is not rewritten:\n%s", silver.Body)
	}
	if got := silver.Body[:silver.selectEnd]; got != "SELECT" {
		t.Errorf("selectEnd stands after %q", got)
	}
	f := p.Flows[0]
	if diff := cmp.Diff([]string{"event_time", "alive_at", "edge", "boot", "stream", "n", "i"}, f.Sequence); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	text := "create or refresh streaming table a.b (constraint c expect (x > (1) and y <> ')') on violation drop row,\n" +
		" CONSTRAINT d EXPECT (z) ON VIOLATION FAIL UPDATE, q array<string> comment 'it''s')\n" +
		"comment 'x' partitioned by (p, `q r`) tblproperties ('k' = 'v', 'l'='w') as -- note\n" +
		"select s.x, 'FROM STREAM(y)' /* from stream(z) */ from stream s.t as s where x = 1;;"
	p, err := Parse([]File{{"f.sql", text}})
	if err != nil {
		t.Fatal(err)
	}
	want := &Table{
		Name: "a.b", Columns: []Column{{"q", "array<string>", "it's"}}, Comment: "x", Partitioned: []string{"p", "q r"},
		Properties:  map[string]string{"k": "v", "l": "w"},
		Constraints: []Constraint{{"c", "x > (1) and y <> ')'", DropRow, 1}, {"d", "z", FailUpdate, 2}},
		Body:        "select s.x, 'FROM STREAM(y)' /* from stream(z) */ from s.t as s where x = 1",
		Streams:     []StreamRef{{"s.t", "s"}}, File: "f.sql", Line: 1,
	}
	if diff := cmp.Diff(want, p.Tables[0], cmpopts.IgnoreUnexported(Table{})); diff != "" {
		t.Error(diff)
	}
}

func TestParseErrors(t *testing.T) {
	const head = "CREATE OR REFRESH STREAMING TABLE a.b "
	for _, c := range []struct{ text, want string }{
		{"SELECT 1", `f.sql:1:1: found "SELECT", want CREATE OR REFRESH STREAMING TABLE`},
		{"CREATE OR REPLACE STREAMING TABLE a.b", "f.sql:1:11: REPLACE would empty the table; write CREATE OR REFRESH"},
		{"CREATE TABLE a.b", `f.sql:1:8: found "TABLE", want STREAMING TABLE or MATERIALIZED VIEW`},
		{"CREATE OR REFRESH STREAMING TABLE b", "table b has no schema; write schema.b"},
		{"CREATE OR REFRESH STREAMING TABLE a.B", `table name "B" must be letters`},
		{head + "(CONSTRAINT c CHECK (x))", "CHECK is not for pipelines; write EXPECT"},
		{head + "(CONSTRAINT c EXPECT x)", "1:60: found \"x\", want the predicate in parentheses"},
		{head + "(CONSTRAINT c EXPECT ())", "parentheses are empty"},
		{head + "(CONSTRAINT c EXPECT (x)\n ON VIOLATION DROP)", "f.sql:2:15: found \"DROP\", want DROP ROW, FAIL UPDATE or QUARANTINE"},
		{head + "(CONSTRAINT c EXPECT (x), CONSTRAINT c EXPECT (y)) AS SELECT 1", "constraint c is declared twice"},
		{head + "(CONSTRAINT c EXPECT (x))", "has constraints and no query"},
		{head + "(x FLOAT)", "want a type"},
		{head + "AS SELECT 1", "reads 0 streams, want one"},
		{head + "AS SELECT 1 FROM STREAM(c.d)", "stream c.d has no alias; write STREAM(c.d) s"},
		{head + "AS SELECT DISTINCT s.x FROM STREAM(c.d) s", "cannot use DISTINCT; declare a MATERIALIZED VIEW"},
		{head + "AS SELECT (1 FROM STREAM(c.d) s", "parenthesis of the query is not closed"},
		{head + "AS SELECT 1) FROM STREAM(c.d) s", "parenthesis is closed and was not opened"},
		{"CREATE OR REFRESH MATERIALIZED VIEW a.b", "has no query; add AS SELECT"},
		{"CREATE OR REFRESH MATERIALIZED VIEW a.b AS SELECT 1 FROM STREAM(c.d) s", "reads whole tables; write FROM c.d"},
		{head + "COMMENT 'x", "string has no end; close it with '"},
		{head + "/* x", "comment has no end"},
		{"CREATE FLOW f AS INSERT INTO a.b SELECT 1", "INSERT INTO flows are not supported"},
		{"CREATE FLOW f AS AUTO CDC INTO a.b FROM STREAM(c.d) KEYS (k) SEQUENCE BY s STORED AS SCD TYPE 2", "want 1 (only SCD TYPE 1"},
		{"CREATE FLOW f AS AUTO CDC INTO a.b FROM STREAM(c.d) KEYS (k) SEQUENCE BY s STORED AS SCD TYPE 1", "writes to a.b, which is not declared"},
		{head + ";" + head, "declared twice"},
		{"\x01", "control character"},
	} {
		_, err := Parse([]File{{"f.sql", c.text}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestHashFollowsContent(t *testing.T) {
	files := shipped(t)
	a, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	files[0], files[1] = files[1], files[0]
	if b, _ := Parse(files); b.Hash() != a.Hash() {
		t.Error("hash depends on the order of the files")
	}
	files[0].Text += " "
	if b, _ := Parse(files); b.Hash() == a.Hash() {
		t.Error("hash does not see a changed text")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range shipped(f) {
		f.Add(s.Text)
	}
	f.Add("CREATE FLOW f AS AUTO CDC INTO a.b FROM STREAM c.d KEYS (k) SEQUENCE BY s STORED AS SCD TYPE 1")
	f.Add("create or refresh streaming table a.b as select 1 from stream(x.y) z")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse([]File{{"f.sql", text}})
		var syntax *SyntaxError
		if errors.As(err, &syntax) && (syntax.Line < 1 || syntax.Column < 1) {
			t.Errorf("error at %d:%d", syntax.Line, syntax.Column)
		}
		if err != nil {
			return
		}
		for _, tab := range p.Tables {
			if tab.Body != "" && !strings.EqualFold(tab.Body[:tab.selectEnd], "select") && !strings.EqualFold(tab.Body[:tab.selectEnd], "with") {
				t.Errorf("body starts with %q", tab.Body[:tab.selectEnd])
			}
		}
	})
}
