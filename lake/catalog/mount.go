package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
)

// Mount is the tables of a lake as views "schema"."table" in one session. Like
// the session it is not safe for concurrent use.
type Mount struct {
	catalog *Catalog
	session *duck.Session
	pinned  map[string]int64
	mounted map[string]*delta.Snapshot
}

// Mount makes a view of every table, at the newest known version or at the one
// that versions names for it.
func (c *Catalog) Mount(ctx context.Context, session *duck.Session, versions map[string]int64) (*Mount, error) {
	m := &Mount{catalog: c, session: session, pinned: maps.Clone(versions), mounted: make(map[string]*delta.Snapshot)}
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		if _, err := c.table(name); err != nil {
			return nil, fmt.Errorf("mounting version %d: %w", versions[name], err)
		}
	}
	if _, err := m.sync(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// Refresh refreshes the catalog and makes anew the views of tables that have
// changed. It returns their names.
func (m *Mount) Refresh(ctx context.Context) ([]string, error) {
	if err := m.catalog.Refresh(ctx); err != nil {
		return nil, err
	}
	return m.sync(ctx)
}

// Version is the version at which a table is mounted.
func (m *Mount) Version(table string) (int64, bool) {
	s, ok := m.mounted[table]
	if !ok {
		return 0, false
	}
	return s.Version(), true
}

func (m *Mount) sync(ctx context.Context) ([]string, error) {
	var changed []string
	snaps := m.catalog.snapshots()
	for _, name := range slices.Sorted(maps.Keys(m.mounted)) {
		if _, ok := snaps[name]; ok {
			continue
		}
		if err := m.session.Exec(ctx, "DROP VIEW IF EXISTS "+viewName(name)); err != nil {
			return changed, fmt.Errorf("unmounting table %s: %w", name, err)
		}
		delete(m.mounted, name)
		changed = append(changed, name)
	}
	for _, name := range slices.Sorted(maps.Keys(snaps)) {
		snap := snaps[name]
		old := m.mounted[name]
		if v, ok := m.pinned[name]; ok {
			if old != nil {
				continue
			}
			t, err := m.catalog.table(name)
			if err == nil {
				snap, err = t.log.SnapshotAt(ctx, v)
			}
			if err != nil {
				return changed, fmt.Errorf("mounting table %s: %w", name, err)
			}
		}
		if old == snap {
			continue
		}
		if err := m.view(ctx, name, snap); err != nil {
			return changed, fmt.Errorf("mounting table %s: %w", name, err)
		}
		m.mounted[name] = snap
		changed = append(changed, name)
	}
	return changed, nil
}

func (m *Mount) view(ctx context.Context, name string, snap *delta.Snapshot) error {
	rel, err := m.catalog.relation(name, snap, snap.Files())
	if err != nil {
		return err
	}
	schema, _, _ := strings.Cut(name, ".")
	if err := m.session.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+duck.Quote(schema)); err != nil {
		return err
	}
	return m.session.Exec(ctx, "CREATE OR REPLACE VIEW "+viewName(name)+" AS SELECT * FROM "+rel)
}

func viewName(table string) string {
	schema, name, _ := strings.Cut(table, ".")
	return duck.Quote(schema) + "." + duck.Quote(name)
}
