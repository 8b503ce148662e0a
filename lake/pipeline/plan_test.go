package pipeline

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlanStore(t *testing.T) {
	s := planStore{t.TempDir() + "/_plans"}
	plan := func(id string, to int64) *Plan {
		return &Plan{Format: planFormat, ID: id, Flow: tableSilver, From: 3, To: to, Shards: []int{1, 2}}
	}
	keys := []planKey{shardKey(tableSilver, 1, 3), shardKey(tableSilver, 2, 3)}
	first, second, mended := plan("first", 5), plan("second", 7), plan("mended", 8)
	taken, err := s.put(first, keys[:1], []int{0})
	if err != nil || len(taken) > 0 {
		t.Fatal(taken, err)
	}
	// One of two places is taken: its plan stays, the other gets the new one.
	if taken, err = s.put(second, keys, []int{0, 0}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keys[:1], taken, cmp.AllowUnexported(planKey{})); diff != "" {
		t.Error(diff)
	}
	for i, want := range []*Plan{first, second} {
		got, try, err := s.latest(keys[i])
		if err != nil || try != 0 {
			t.Fatal(try, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := s.put(mended, keys, []int{1, 1}); err != nil {
		t.Fatal(err)
	}
	if got, try, err := s.latest(keys[1]); err != nil || try != 1 || got.ID != "mended" {
		t.Errorf("latest is %+v, %d, %v", got, try, err)
	}
	// What starts before is finished; what starts there or later is not.
	if err := s.drop(shardKey(tableSilver, 1, 3)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.latest(keys[0]); err != nil || got == nil {
		t.Errorf("a plan that is not finished is gone: %v", err)
	}
	if err := s.drop(shardKey(tableSilver, 1, 8)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.latest(keys[0]); err != nil || got != nil {
		t.Errorf("latest is %+v, %v; want none", got, err)
	}
	if err := os.WriteFile(s.path(keys[1], 2), []byte(`{"format": 2}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.latest(keys[1]); err == nil {
		t.Error("a plan of another format is read")
	}
}

func TestKeepPipeline(t *testing.T) {
	s := planStore{t.TempDir()}
	p, err := Parse(shipped(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.keepPipeline(p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.pipeline(p.Hash())
	if err != nil {
		t.Fatal(err)
	}
	if got.Hash() != p.Hash() {
		t.Errorf("hash is %s, want %s", got.Hash(), p.Hash())
	}
}
