package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// planFormat is the version of the plan record.
const planFormat = 1

// Plan is everything that the result of a batch depends on besides its source.
// It is written before work starts and never changed.
type Plan struct {
	Format    int           `json:"format"`
	ID        string        `json:"id"`         // names the batch
	Flow      string        `json:"flow"`       // the table that the flow fills
	BatchTime signal.Micros `json:"batch_time"` // plant time
	Pipeline  string        `json:"pipeline"`   // content hash
	Registry  int64         `json:"registry,omitempty"`

	// Bronze: offsets, and the state that messages are compared with.
	Ranges []OffsetRange `json:"ranges,omitempty"`
	Dedupe string        `json:"dedupe,omitempty"`

	// Silver and gold: the source's versions (From, To], and the shards.
	Source string `json:"source,omitempty"`
	From   int64  `json:"from,omitempty"`
	To     int64  `json:"to,omitempty"`
	Shards []int  `json:"shards,omitempty"`
}

// OffsetRange is [Start, End) of a spine partition.
type OffsetRange struct {
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`
	End       int64  `json:"end"`
}

// planKey is the place of a plan: one spine partition's or one shard's batch
// that starts at start.
type planKey struct {
	dir   string // {flow}/{topic id}/{partition} or {flow}/{shard}
	start int64
}

func shardKey(flow string, shard int, start int64) planKey {
	return planKey{flow + "/" + strconv.Itoa(shard), start}
}

func rangeKey(flow string, r OffsetRange) planKey {
	return planKey{fmt.Sprintf("%s/%s/%d", flow, r.TopicID, r.Partition), r.Start}
}

// planStore keeps plan records and the texts of the pipelines that they name
// under <lake>/_plans.
type planStore struct{ dir string }

func (s planStore) path(k planKey, try int) string {
	name := strconv.FormatInt(k.start, 10)
	if try > 0 {
		name += "." + strconv.Itoa(try)
	}
	return filepath.Join(s.dir, filepath.FromSlash(k.dir), name+".json")
}

func newPlanID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("drawing a batch id: %w", err)
	}
	return id.String(), nil
}

// put writes the plan once and links it to every key, as try number tries[i].
// It returns the keys that somebody else's plan already has.
func (s planStore) put(p *Plan, keys []planKey, tries []int) (taken []planKey, err error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("writing plan of %s: %w", p.Flow, err)
	}
	staged := filepath.Join(s.dir, "staged", p.ID+".json")
	if err := delta.PutIfAbsent(staged, data); err != nil {
		return nil, fmt.Errorf("writing plan %s: %w", staged, err)
	}
	defer func() { err = errors.Join(err, ignoreAbsent(os.Remove(staged))) }()
	for i, k := range keys {
		path := s.path(k, tries[i])
		if err := s.makeDir(filepath.Dir(path)); err != nil {
			return nil, fmt.Errorf("writing plan %s: %w", path, err)
		}
		switch err := os.Link(staged, path); {
		case errors.Is(err, fs.ErrExist):
			taken = append(taken, k)
		case err != nil:
			return nil, fmt.Errorf("writing plan %s: %w", path, err)
		}
	}
	// After the first of them a journaling file system has the others too, so
	// the rest costs next to nothing.
	for _, k := range keys {
		if err := delta.SyncDir(filepath.Dir(s.path(k, 0))); err != nil {
			return nil, fmt.Errorf("writing plan of %s: %w", p.Flow, err)
		}
	}
	return taken, nil
}

// makeDir makes a directory below the store and makes it durable.
func (s planStore) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || dir == s.dir {
		return err
	}
	parent := filepath.Dir(dir)
	if err := s.makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return delta.SyncDir(parent)
}

// latest returns the newest plan of a key and its number; nil if there is none.
func (s planStore) latest(k planKey) (*Plan, int, error) {
	var found *Plan
	for try := 0; ; try++ {
		path := s.path(k, try)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return found, try - 1, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("reading plan %s: %w", path, err)
		}
		if found, err = decodePlan(data); err != nil {
			return nil, 0, fmt.Errorf("reading plan %s: %w", path, err)
		}
	}
}

func decodePlan(data []byte) (*Plan, error) {
	p := new(Plan)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, err
	}
	if p.Format != planFormat {
		return nil, fmt.Errorf("plan has format %d, this program reads %d; use the version that wrote it", p.Format, planFormat)
	}
	return p, nil
}

// drop removes the plans of a key's directory that start before start: their
// batches have committed.
func (s planStore) drop(k planKey) error {
	dir := filepath.Join(s.dir, filepath.FromSlash(k.dir))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreAbsent(err)
	}
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), ".")
		if start, err := strconv.ParseInt(number, 10, 64); err == nil && start < k.start {
			if err := ignoreAbsent(os.Remove(filepath.Join(dir, e.Name()))); err != nil {
				return err
			}
		}
	}
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// keepPipeline stores the text of a pipeline under its hash, so that a batch
// that was half committed under it can be finished by a later version.
func (s planStore) keepPipeline(p *Pipeline) error {
	data, err := json.MarshalIndent(p.files, "", " ")
	if err != nil {
		return fmt.Errorf("keeping pipeline %s: %w", p.hash, err)
	}
	if err := delta.PutIfAbsent(s.pipelinePath(p.hash), data); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keeping pipeline %s: %w", p.hash, err)
	}
	return nil
}

func (s planStore) pipelinePath(hash string) string {
	return filepath.Join(s.dir, "pipelines", hash+".json")
}

func (s planStore) pipeline(hash string) (*Pipeline, error) {
	path := s.pipelinePath(hash)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the pipeline that a half-committed batch was planned with: %w", err)
	}
	var files []File
	if err := json.Unmarshal(data, &files); err != nil {
		return nil, fmt.Errorf("reading pipeline %s: %w", path, err)
	}
	p, err := Parse(files)
	if err != nil {
		return nil, fmt.Errorf("reading pipeline %s: %w", path, err)
	}
	return p, nil
}

// planOfTxn finds the plan that the commit named which moved appID to version.
func planOfTxn(ctx context.Context, t *delta.Table, appID string, version int64) (*Plan, error) {
	const stride = 64
	for hi := t.Last().Version(); hi > 0; hi -= stride {
		changes, err := t.Changes(ctx, max(hi-stride, 0), hi)
		if err != nil {
			return nil, fmt.Errorf("looking for the plan of %s %d in %s: %w", appID, version, t.Dir(), err)
		}
		for _, change := range slices.Backward(changes) {
			if v, ok := change.Txns[appID]; ok && v == version {
				p, err := decodePlan([]byte(change.Info.Parameters["plan"]))
				if err != nil {
					return nil, fmt.Errorf("reading the plan in version %d of %s: %w", change.Version, t.Dir(), err)
				}
				return p, nil
			}
		}
	}
	return nil, fmt.Errorf("looking for the plan of %s %d: no entry in the log of %s moved it there; restore _delta_log from a copy", appID, version, t.Dir())
}
