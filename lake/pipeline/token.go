package pipeline

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SyntaxError is a mistake in a pipeline file. Message says what would be right.
type SyntaxError struct {
	File         string
	Line, Column int // from 1; columns count characters
	Message      string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

type tokenKind uint8

const (
	tokenEnd    tokenKind = iota
	tokenWord             // identifier or keyword
	tokenQuoted           // "x" or `x`
	tokenString           // 'x'
	tokenNumber
	tokenSymbol // one operator character
)

// token is a piece of SQL text; comments and blanks are none.
type token struct {
	kind     tokenKind
	from, to int    // bytes of the file
	text     string // unquoted for tokenQuoted and tokenString
}

func (t token) is(word string) bool { return t.kind == tokenWord && strings.EqualFold(t.text, word) }

func (t token) symbol(s string) bool { return t.kind == tokenSymbol && t.text == s }

func (t token) String() string {
	switch t.kind {
	case tokenEnd:
		return "the end of the file"
	case tokenString:
		return "'" + t.text + "'"
	}
	return fmt.Sprintf("%q", t.text)
}

// maxFileBytes bounds a pipeline file.
const maxFileBytes = 1 << 20

type source struct{ name, text string }

func (s source) errorAt(offset int, format string, args ...any) *SyntaxError {
	before := s.text[:min(offset, len(s.text))]
	line := strings.Count(before, "\n") + 1
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return &SyntaxError{File: s.name, Line: line, Column: column, Message: fmt.Sprintf(format, args...)}
}

// tokens splits the text. The last token is tokenEnd.
func (s source) tokens() ([]token, error) {
	if len(s.text) > maxFileBytes {
		return nil, s.errorAt(0, "file of %d bytes is longer than %d; split it", len(s.text), maxFileBytes)
	}
	if !utf8.ValidString(s.text) {
		return nil, s.errorAt(0, "file is not UTF-8")
	}
	var out []token
	for i := 0; i < len(s.text); {
		next, tok, err := s.scan(i)
		if err != nil {
			return nil, err
		}
		if tok.kind != tokenEnd {
			out = append(out, tok)
		}
		i = next
	}
	return append(out, token{kind: tokenEnd, from: len(s.text), to: len(s.text)}), nil
}

// scan reads what starts at i; a token of kind tokenEnd stands for a blank or a
// comment.
func (s source) scan(i int) (int, token, error) {
	t := s.text
	r, size := utf8.DecodeRuneInString(t[i:])
	switch {
	case unicode.IsSpace(r) || r == '\ufeff':
		return i + size, token{}, nil
	case strings.HasPrefix(t[i:], "--"):
		if end := strings.IndexByte(t[i:], '\n'); end >= 0 {
			return i + end + 1, token{}, nil
		}
		return len(t), token{}, nil
	case strings.HasPrefix(t[i:], "/*"):
		end, err := s.blockComment(i)
		return end, token{}, err
	case r == '\'':
		return s.quoted(i, '\'', tokenString, "string")
	case r == '"' || r == '`':
		return s.quoted(i, byte(r), tokenQuoted, "name")
	case isWordStart(r):
		end := i + size
		for end < len(t) {
			r, size := utf8.DecodeRuneInString(t[end:])
			if !isWordStart(r) && !unicode.IsDigit(r) && r != '$' {
				break
			}
			end += size
		}
		return end, token{tokenWord, i, end, t[i:end]}, nil
	case r >= '0' && r <= '9':
		end := number(t, i)
		return end, token{tokenNumber, i, end, t[i:end]}, nil
	case unicode.IsControl(r):
		return 0, token{}, s.errorAt(i, "control character %U does not belong in SQL", r)
	}
	return i + size, token{tokenSymbol, i, i + size, t[i : i+size]}, nil
}

func isWordStart(r rune) bool { return r == '_' || unicode.IsLetter(r) }

func number(t string, i int) int {
	for i < len(t) {
		c := t[i]
		sign := (c == '+' || c == '-') && (t[i-1] == 'e' || t[i-1] == 'E')
		if !sign && c != '.' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			break
		}
		i++
	}
	return i
}

// blockComment returns the end of the comment that starts at i; comments nest.
func (s source) blockComment(i int) (int, error) {
	depth := 0
	for j := i; j < len(s.text); {
		switch {
		case strings.HasPrefix(s.text[j:], "/*"):
			depth++
			j += 2
		case strings.HasPrefix(s.text[j:], "*/"):
			depth--
			j += 2
			if depth == 0 {
				return j, nil
			}
		default:
			j++
		}
	}
	return 0, s.errorAt(i, "comment has no end; close it with */")
}

// quoted reads a text in quotes, in which the doubled quote stands for itself.
func (s source) quoted(i int, quote byte, kind tokenKind, what string) (int, token, error) {
	var b strings.Builder
	for j := i + 1; j < len(s.text); j++ {
		if s.text[j] != quote {
			b.WriteByte(s.text[j])
			continue
		}
		if j+1 < len(s.text) && s.text[j+1] == quote {
			b.WriteByte(quote)
			j++
			continue
		}
		if kind == tokenQuoted && b.Len() == 0 {
			return 0, token{}, s.errorAt(i, "name in quotes is empty")
		}
		return j + 1, token{kind, i, j + 1, b.String()}, nil
	}
	return 0, token{}, s.errorAt(i, "%s has no end; close it with %c", what, quote)
}
