package credentials_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/credentials"
)

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLogin(t *testing.T) {
	env := func(k string) string { return map[string]string{"PW": "from env"}[k] }
	for _, c := range []struct {
		name, user, file, variable, want, err string
	}{
		{name: "nobody"},
		{name: "a variable", user: "u", variable: "PW", want: "from env"},
		{name: "a file goes before", user: "u", file: file(t, "s e\r\nmore\n"), variable: "PW", want: "s e"},
		{name: "nothing", user: "u", variable: "NONE", err: "set NONE"},
		{name: "an empty file", user: "u", file: file(t, "\n"), err: "first line is empty"},
		{name: "no such file", user: "u", file: "nowhere", err: "nowhere"},
		{name: "no user", file: file(t, "x"), err: "no user"},
		{name: "a stray variable is nobody's", variable: "PW"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := credentials.ReadLogin(c.user, c.file, c.variable, env)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Password.Reveal() != c.want {
				t.Errorf("password %q, want %q", got.Password.Reveal(), c.want)
			}
		})
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	l := credentials.Login{User: "u", Password: "hunter2"}
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "login", l, "password", l.Password)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "login", l, "password", l.Password)
	said := string(b) + log.String() + fmt.Sprint(l) + fmt.Sprintf("%v %+v %#v %s %q", l, l, l, l.Password, l.Password)
	if strings.Contains(said, "hunter2") {
		t.Error(said)
	}
}

func TestBrokenFiles(t *testing.T) {
	for _, c := range []struct {
		name  string
		files credentials.Files
		err   string
	}{
		{"no PEM", credentials.Files{CA: file(t, "x")}, "holds none"},
		{"no file", credentials.Files{CA: "nowhere"}, "nowhere"},
		{"no key", credentials.Files{Cert: file(t, "x")}, "both"},
		{"no pair", credentials.Files{Cert: file(t, "x"), Key: file(t, "y")}, "reading certificate"},
		{"a file without end", credentials.Files{CA: "/dev/zero"}, "longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.files.Client(); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q in it", err, c.err)
			}
		})
	}
	if _, err := (credentials.Files{}).Server(); err == nil {
		t.Error("a server without a certificate")
	}
}
