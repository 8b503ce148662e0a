package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Parse reads pipeline files. It reports every file's first mistake.
func Parse(files []File) (*Pipeline, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	p := &Pipeline{files: files, hash: hashFiles(files)}
	var errs []error
	for _, f := range files {
		if err := p.parseFile(source{f.Name, f.Text}); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		errs = append(errs, p.checkNames()...)
	}
	return p, errors.Join(errs...)
}

func (p *Pipeline) checkNames() []error {
	var errs []error
	seen := map[string]string{}
	for _, t := range p.Tables {
		at := fmt.Sprintf("%s:%d", t.File, t.Line)
		if first, ok := seen[t.Name]; ok {
			errs = append(errs, fmt.Errorf("%s: table %s is declared twice, first at %s", at, t.Name, first))
		}
		seen[t.Name] = at
	}
	targets := map[string]string{}
	for _, f := range p.Flows {
		at := fmt.Sprintf("%s:%d", f.File, f.Line)
		switch t := p.Table(f.Target); {
		case t == nil:
			errs = append(errs, fmt.Errorf("%s: flow %s writes to %s, which is not declared; add CREATE OR REFRESH STREAMING TABLE %s", at, f.Name, f.Target, f.Target))
		case t.Body != "":
			errs = append(errs, fmt.Errorf("%s: flow %s writes to %s, which has a query of its own; declare it without AS", at, f.Name, f.Target))
		}
		if first, ok := targets[f.Target]; ok {
			errs = append(errs, fmt.Errorf("%s: table %s has two flows, the first at %s; one AUTO CDC flow for each table", at, f.Target, first))
		}
		targets[f.Target] = at
		if p.Table(f.Source) == nil {
			errs = append(errs, fmt.Errorf("%s: flow %s reads %s, which is not declared", at, f.Name, f.Source))
		}
	}
	return errs
}

func (p *Pipeline) parseFile(src source) error {
	toks, err := src.tokens()
	if err != nil {
		return err
	}
	r := &parser{src: src, toks: toks}
	for {
		for r.takeSymbol(";") {
		}
		if r.peek().kind == tokenEnd {
			return nil
		}
		if err := r.statement(p); err != nil {
			return err
		}
		if t := r.peek(); t.kind != tokenEnd && !t.symbol(";") {
			return r.wrong(t, "; after the statement")
		}
	}
}

type parser struct {
	src  source
	toks []token
	at   int
}

func (r *parser) peek() token { return r.toks[r.at] }

func (r *parser) ahead(n int) token { return r.toks[min(r.at+n, len(r.toks)-1)] }

func (r *parser) next() token {
	t := r.toks[r.at]
	if t.kind != tokenEnd {
		r.at++
	}
	return t
}

func (r *parser) wrong(t token, want string) error {
	return r.src.errorAt(t.from, "found %s, want %s", t, want)
}

func (r *parser) line(t token) int { return strings.Count(r.src.text[:t.from], "\n") + 1 }

// take consumes the words if all of them follow.
func (r *parser) take(words ...string) bool {
	for i, w := range words {
		if !r.ahead(i).is(w) {
			return false
		}
	}
	r.at += len(words)
	return true
}

func (r *parser) takeSymbol(s string) bool {
	if r.peek().symbol(s) {
		r.at++
		return true
	}
	return false
}

func (r *parser) need(words ...string) error {
	for _, w := range words {
		if !r.take(w) {
			return r.wrong(r.peek(), w)
		}
	}
	return nil
}

func (r *parser) needSymbol(s string) error {
	if !r.takeSymbol(s) {
		return r.wrong(r.peek(), s)
	}
	return nil
}

func (r *parser) name(what string) (string, error) {
	t := r.peek()
	if t.kind != tokenWord && t.kind != tokenQuoted {
		return "", r.wrong(t, what)
	}
	r.next()
	return t.text, nil
}

func (r *parser) text(what string) (string, error) {
	if t := r.peek(); t.kind != tokenString {
		return "", r.wrong(t, what+" in single quotes")
	}
	return r.next().text, nil
}

// table reads schema.table.
func (r *parser) table() (string, error) {
	start := r.peek()
	schema, err := r.name("a table: schema.name")
	if err != nil {
		return "", err
	}
	if !r.takeSymbol(".") {
		return "", r.src.errorAt(start.from, "table %s has no schema; write schema.%s, for example silver.%s", schema, schema, schema)
	}
	name, err := r.name("the table's name")
	if err != nil {
		return "", err
	}
	for _, n := range []string{schema, name} {
		if !plainName(n) {
			return "", r.src.errorAt(start.from, "table name %q must be letters, digits and _ in lower case", n)
		}
	}
	return schema + "." + name, nil
}

func plainName(s string) bool {
	for i, c := range []byte(s) {
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

func (r *parser) statement(p *Pipeline) error {
	start := r.peek()
	if !r.take("CREATE") {
		return r.wrong(start, "CREATE OR REFRESH STREAMING TABLE, CREATE OR REFRESH MATERIALIZED VIEW or CREATE FLOW")
	}
	if r.take("FLOW") {
		f, err := r.flow(start)
		if err != nil {
			return err
		}
		p.Flows = append(p.Flows, f)
		return nil
	}
	if r.take("OR") {
		if r.peek().is("REPLACE") {
			return r.src.errorAt(r.peek().from, "REPLACE would empty the table; write CREATE OR REFRESH")
		}
		if err := r.need("REFRESH"); err != nil {
			return err
		}
	}
	t := &Table{File: r.src.name, Line: r.line(start), Properties: map[string]string{}}
	switch {
	case r.take("STREAMING", "TABLE"):
	case r.take("MATERIALIZED", "VIEW"):
		t.Materialized = true
	default:
		return r.wrong(r.peek(), "STREAMING TABLE or MATERIALIZED VIEW")
	}
	if err := r.declaration(t); err != nil {
		return err
	}
	p.Tables = append(p.Tables, t)
	return nil
}

func (r *parser) declaration(t *Table) error {
	var err error
	start := r.peek()
	if t.Name, err = r.table(); err != nil {
		return err
	}
	if r.peek().symbol("(") {
		if err := r.items(t); err != nil {
			return err
		}
	}
	for {
		switch {
		case r.take("COMMENT"):
			t.Comment, err = r.text("the comment")
		case r.take("PARTITIONED", "BY"):
			t.Partitioned, err = r.nameList()
		case r.take("TBLPROPERTIES"):
			err = r.properties(t)
		case r.take("REFRESH"):
			err = r.refresh(t)
		case r.take("AS"):
			return r.body(t)
		case r.peek().kind == tokenEnd || r.peek().symbol(";"):
			if t.Materialized {
				return r.src.errorAt(start.from, "materialized view %s has no query; add AS SELECT …", t.Name)
			}
			if len(t.Constraints) > 0 {
				return r.src.errorAt(start.from, "table %s has constraints and no query to judge; add AS SELECT …", t.Name)
			}
			return nil
		default:
			return r.wrong(r.peek(), "COMMENT, PARTITIONED BY, TBLPROPERTIES, REFRESH POLICY, AS or ;")
		}
		if err != nil {
			return err
		}
	}
}

func (r *parser) refresh(t *Table) error {
	if err := r.need("POLICY"); err != nil {
		return err
	}
	for _, w := range []string{"FULL", "INCREMENTAL", "AUTO"} {
		if r.take(w) {
			t.Refresh = w
			if w == "INCREMENTAL" && r.take("STRICT") {
				t.Refresh = "INCREMENTAL STRICT"
			}
			return nil
		}
	}
	return r.wrong(r.peek(), "AUTO, INCREMENTAL, INCREMENTAL STRICT or FULL")
}

func (r *parser) nameList() ([]string, error) {
	if err := r.needSymbol("("); err != nil {
		return nil, err
	}
	var out []string
	for {
		t := r.peek()
		n, err := r.name("a column")
		if err != nil {
			return nil, err
		}
		if slices.Contains(out, n) {
			return nil, r.src.errorAt(t.from, "column %s is named twice", n)
		}
		out = append(out, n)
		if r.takeSymbol(")") {
			return out, nil
		}
		if !r.takeSymbol(",") {
			return nil, r.wrong(r.peek(), ", or )")
		}
	}
}

func (r *parser) properties(t *Table) error {
	if err := r.needSymbol("("); err != nil {
		return err
	}
	for {
		at := r.peek()
		k, err := r.text("a property's name")
		if err != nil {
			return err
		}
		if err := r.needSymbol("="); err != nil {
			return err
		}
		v, err := r.text("the property's value")
		if err != nil {
			return err
		}
		if _, ok := t.Properties[k]; ok {
			return r.src.errorAt(at.from, "property '%s' is given twice", k)
		}
		t.Properties[k] = v
		if r.takeSymbol(")") {
			return nil
		}
		if !r.takeSymbol(",") {
			return r.wrong(r.peek(), ", or )")
		}
	}
}

// items reads ( column | CONSTRAINT …, … ).
func (r *parser) items(t *Table) error {
	r.next()
	for {
		at := r.peek()
		var err error
		if at.is("CONSTRAINT") {
			err = r.constraint(t)
		} else {
			err = r.column(t)
		}
		if err != nil {
			return err
		}
		if r.takeSymbol(")") {
			return nil
		}
		if !r.takeSymbol(",") {
			return r.wrong(r.peek(), ", or )")
		}
	}
}

func (r *parser) constraint(t *Table) error {
	at := r.next()
	c := Constraint{Line: r.line(at)}
	nameAt := r.peek()
	var err error
	if c.Name, err = r.name("the constraint's name"); err != nil {
		return err
	}
	if !plainName(c.Name) {
		return r.src.errorAt(nameAt.from, "constraint name %q must be letters, digits and _ in lower case", c.Name)
	}
	if slices.ContainsFunc(t.Constraints, func(o Constraint) bool { return o.Name == c.Name }) {
		return r.src.errorAt(nameAt.from, "constraint %s is declared twice", c.Name)
	}
	if r.peek().is("CHECK") {
		return r.src.errorAt(r.peek().from, "CHECK is not for pipelines; write EXPECT (…)")
	}
	if err := r.need("EXPECT"); err != nil {
		return err
	}
	if c.Predicate, err = r.parenthesised("the predicate in parentheses"); err != nil {
		return err
	}
	if r.take("ON") {
		if err := r.need("VIOLATION"); err != nil {
			return err
		}
		switch {
		case r.take("DROP", "ROW"):
			c.OnViolation = DropRow
		case r.take("FAIL", "UPDATE"):
			c.OnViolation = FailUpdate
		case r.take("QUARANTINE"):
			c.OnViolation = Quarantine
		default:
			return r.wrong(r.peek(), "DROP ROW, FAIL UPDATE or QUARANTINE (leave ON VIOLATION away to keep and count the row)")
		}
	}
	t.Constraints = append(t.Constraints, c)
	return nil
}

// parenthesised returns the text between a ( and its ).
func (r *parser) parenthesised(what string) (string, error) {
	open := r.peek()
	if !open.symbol("(") {
		return "", r.wrong(open, what)
	}
	r.next()
	depth := 1
	for {
		t := r.next()
		switch {
		case t.kind == tokenEnd:
			return "", r.src.errorAt(open.from, "parenthesis is not closed")
		case t.symbol("("):
			depth++
		case t.symbol(")"):
			depth--
		}
		if depth == 0 {
			inner := strings.TrimSpace(r.src.text[open.to:t.from])
			if r.toks[r.at-2].from == open.from {
				return "", r.src.errorAt(open.from, "parentheses are empty, want %s", what)
			}
			return inner, nil
		}
	}
}

var columnTypes = [...][2]string{
	{"STRING", "string"},
	{"BIGINT", "long"},
	{"LONG", "long"},
	{"INT", "integer"},
	{"INTEGER", "integer"},
	{"DOUBLE", "double"},
	{"BINARY", "binary"},
	{"BOOLEAN", "boolean"},
	{"TIMESTAMP", "timestamp"},
	{"DATE", "date"},
}

func (r *parser) column(t *Table) error {
	at := r.peek()
	name, err := r.name("a column or CONSTRAINT")
	if err != nil {
		return err
	}
	if slices.ContainsFunc(t.Columns, func(o Column) bool { return strings.EqualFold(o.Name, name) }) {
		return r.src.errorAt(at.from, "column %s is declared twice", name)
	}
	c := Column{Name: name}
	array := r.take("ARRAY")
	if array {
		if err := r.needSymbol("<"); err != nil {
			return err
		}
	}
	for _, ty := range columnTypes {
		if r.take(ty[0]) {
			c.Type = ty[1]
		}
	}
	if c.Type == "" {
		return r.wrong(r.peek(), "a type: STRING, BIGINT, INT, DOUBLE, BOOLEAN, TIMESTAMP, DATE or ARRAY<…>")
	}
	if array {
		if err := r.needSymbol(">"); err != nil {
			return err
		}
		c.Type = "array<" + c.Type + ">"
	}
	if r.take("COMMENT") {
		if c.Comment, err = r.text("the comment"); err != nil {
			return err
		}
	}
	t.Columns = append(t.Columns, c)
	return nil
}
