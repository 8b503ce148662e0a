package pipeline

import (
	"slices"
	"strings"
)

// body reads the query up to ; and takes its STREAM words away.
func (r *parser) body(t *Table) error {
	start, first := r.at, r.peek()
	if t.Materialized {
		if !first.is("SELECT") && !first.is("WITH") {
			return r.wrong(first, "SELECT or WITH")
		}
	} else if !first.is("SELECT") {
		return r.wrong(first, "SELECT (a streaming table's query has no WITH)")
	}
	var b strings.Builder
	depth, last, from := 0, first, first.from
	for {
		tok := r.peek()
		if tok.kind == tokenEnd || depth == 0 && tok.symbol(";") {
			break
		}
		switch {
		case tok.symbol("("):
			depth++
		case tok.symbol(")"):
			if depth--; depth < 0 {
				return r.src.errorAt(tok.from, "parenthesis is closed and was not opened")
			}
		case tok.is("STREAM") && (last.is("FROM") || last.is("JOIN")) && !r.ahead(1).symbol("."):
			b.WriteString(r.src.text[from:tok.from])
			ref, end, err := r.stream()
			if err != nil {
				return err
			}
			b.WriteString(ref.Table)
			if t.Materialized {
				return r.src.errorAt(tok.from, "a materialized view reads whole tables; write FROM %s", ref.Table)
			}
			t.Streams = append(t.Streams, ref)
			last, from = r.toks[r.at-1], end
			continue
		}
		last = r.next()
	}
	if depth > 0 {
		return r.src.errorAt(first.from, "a parenthesis of the query is not closed")
	}
	b.WriteString(r.src.text[from:last.to])
	t.Body, t.selectEnd = b.String(), first.to-first.from
	if t.Materialized {
		return nil
	}
	if len(t.Streams) != 1 {
		return r.src.errorAt(first.from, "streaming table %s reads %d streams, want one: FROM STREAM(schema.table) alias", t.Name, len(t.Streams))
	}
	return r.rowByRow(t, start)
}

// stream reads STREAM(x) alias or STREAM x alias and returns the end of x.
func (r *parser) stream() (StreamRef, int, error) {
	at := r.next()
	open := r.takeSymbol("(")
	name, err := r.table()
	if err != nil {
		return StreamRef{}, 0, err
	}
	end := r.toks[r.at-1].to
	if open {
		if err := r.needSymbol(")"); err != nil {
			return StreamRef{}, 0, err
		}
		end = r.toks[r.at-1].to
	}
	ref := StreamRef{Table: name}
	alias := r.peek()
	if alias.is("AS") {
		alias = r.ahead(1)
	}
	if alias.kind != tokenWord && alias.kind != tokenQuoted || clauseWord(alias) {
		return StreamRef{}, 0, r.src.errorAt(at.from, "stream %s has no alias; write STREAM(%s) s", name, name)
	}
	ref.Alias = alias.text
	return ref, end, nil
}

func clauseWord(t token) bool {
	return slices.ContainsFunc([]string{"WHERE", "LEFT", "RIGHT", "INNER", "FULL", "CROSS", "JOIN", "ON", "GROUP", "ORDER", "LIMIT", "HAVING", "UNION", "QUALIFY"}, t.is)
}

// rowByRow refuses what a streaming table cannot do one row at a time.
func (r *parser) rowByRow(t *Table, first int) error {
	for _, tok := range r.toks[first:r.at] {
		for _, w := range []string{"DISTINCT", "GROUP", "HAVING", "QUALIFY", "OVER", "LIMIT", "UNION", "INTERSECT", "EXCEPT", "ORDER"} {
			if tok.is(w) {
				return r.src.errorAt(tok.from, "streaming table %s works row by row and cannot use %s; declare a MATERIALIZED VIEW for it", t.Name, w)
			}
		}
	}
	return nil
}

// flow reads what follows CREATE FLOW.
func (r *parser) flow(start token) (*Flow, error) {
	f := &Flow{File: r.src.name, Line: r.line(start)}
	var err error
	if f.Name, err = r.name("the flow's name"); err != nil {
		return nil, err
	}
	if err := r.need("AS"); err != nil {
		return nil, err
	}
	if r.peek().is("INSERT") {
		return nil, r.src.errorAt(r.peek().from, "INSERT INTO flows are not supported; write the query into the table: CREATE OR REFRESH STREAMING TABLE … AS SELECT …")
	}
	if r.peek().is("APPLY") {
		return nil, r.src.errorAt(r.peek().from, "APPLY CHANGES is the old name; write AUTO CDC INTO …")
	}
	if err := r.need("AUTO", "CDC", "INTO"); err != nil {
		return nil, err
	}
	if f.Target, err = r.table(); err != nil {
		return nil, err
	}
	if err := r.need("FROM", "STREAM"); err != nil {
		return nil, err
	}
	open := r.takeSymbol("(")
	if f.Source, err = r.table(); err != nil {
		return nil, err
	}
	if open {
		if err := r.needSymbol(")"); err != nil {
			return nil, err
		}
	}
	if err := r.need("KEYS"); err != nil {
		return nil, err
	}
	if f.Keys, err = r.nameList(); err != nil {
		return nil, err
	}
	if err := r.need("SEQUENCE", "BY"); err != nil {
		return nil, err
	}
	if r.take("STRUCT") {
		f.Sequence, err = r.nameList()
	} else {
		var one string
		one, err = r.name("a column or struct(…)")
		f.Sequence = []string{one}
	}
	if err != nil {
		return nil, err
	}
	if err := r.need("STORED", "AS", "SCD", "TYPE"); err != nil {
		return nil, err
	}
	if t := r.next(); t.text != "1" {
		return nil, r.wrong(t, "1 (only SCD TYPE 1 is kept; the history is in the source table)")
	}
	return f, nil
}
