package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/headrace/headrace/cmd/internal/verb"
)

// version is set by the release build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

type versionCmd struct {
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (versionCmd) Help() string { return "Example:\n  headrace version --output json" }

// Run prints the version.
func (c versionCmd) Run(e *verb.Env) error {
	v := struct {
		Version string `json:"version"`
		Commit  string `json:"commit,omitempty"`
		Go      string `json:"go"`
		OS      string `json:"os"`
		Arch    string `json:"arch"`
	}{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	if c.Output == "json" {
		return json.NewEncoder(e.Stdout).Encode(v)
	}
	_, err := fmt.Fprintf(e.Stdout, "headrace %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
	return err
}
