package delta

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	raceProcesses = 4
	raceCommits   = 75
)

// TestManyProcesses lets several processes create and write one table. Each
// has a number of its own, and all of them push one that they share.
func TestManyProcesses(t *testing.T) {
	if dir := os.Getenv("DELTA_RACE_DIR"); dir != "" {
		raceWriter(t, dir, os.Getenv("DELTA_RACE_NAME"))
		return
	}
	dir := filepath.Join(t.TempDir(), "table")
	children := make([]*exec.Cmd, raceProcesses)
	outputs := make([]strings.Builder, raceProcesses)
	for i := range children {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestManyProcesses$", "-test.count=1")
		cmd.Env = append(os.Environ(), "DELTA_RACE_DIR="+dir, fmt.Sprintf("DELTA_RACE_NAME=p%d", i))
		cmd.Stdout, cmd.Stderr = &outputs[i], &outputs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		children[i] = cmd
	}
	for i, cmd := range children {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v\n%s", i, err, outputs[i].String())
		}
	}
	table, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := table.Last()
	if want := int64(raceProcesses * raceCommits); s.Version() != want || int64(len(s.Files())) != want {
		t.Errorf("version %d with %d files, want %d of both", s.Version(), len(s.Files()), want)
	}
	changes, err := table.Changes(t.Context(), 0, s.Version())
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]int64{}
	for _, v := range changes {
		for app, n := range v.Txns {
			if n != last[app]+1 {
				t.Errorf("version %d: transaction %s goes from %d to %d", v.Version, app, last[app], n)
			}
			last[app] = n
		}
	}
	for i := range raceProcesses {
		if n := last[fmt.Sprintf("p%d", i)]; n != raceCommits {
			t.Errorf("process %d: %d commits", i, n)
		}
	}
	if n := last["shared"]; n != raceProcesses*raceCommits {
		t.Errorf("shared number is %d", n)
	}
}

func raceWriter(t *testing.T, dir, name string) {
	table, err := OpenOrCreate(t.Context(), dir, definition(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	shared := table.Last().Txn("shared")
	for i := range int64(raceCommits) {
		a := file(t, dir, fmt.Sprintf("%s-%d.parquet", name, i))
		for {
			_, err := table.Commit(t.Context(), Commit{
				ReadVersion: 0, Operation: "WRITE", Adds: []AddFile{a},
				Txns: []TxnStep{{name, i, i + 1}, {"shared", shared, shared + 1}},
			})
			var moved *TxnMovedError
			if errors.As(err, &moved) && moved.AppID == "shared" && moved.Stored > shared {
				shared = moved.Stored
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			shared++
			break
		}
	}
}
