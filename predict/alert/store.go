package alert

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/headrace/headrace/internal/sqlite"
	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/signal"
)

func migrations() []string {
	return []string{`
CREATE TABLE channel (
  asset  TEXT NOT NULL,
  sensor TEXT NOT NULL,
  cursor INTEGER NOT NULL, -- newest window seen, µs
  state  TEXT NOT NULL,    -- JSON
  PRIMARY KEY (asset, sensor)
) STRICT;

CREATE TABLE episode (
  id      TEXT PRIMARY KEY,
  asset   TEXT NOT NULL,
  raised  INTEGER NOT NULL,
  cleared INTEGER NOT NULL, -- 0 while it lasts
  content TEXT NOT NULL     -- JSON
) STRICT;

-- The outbox: requests for work orders, one an episode.
CREATE TABLE request (
  episode   TEXT PRIMARY KEY REFERENCES episode,
  work_order TEXT NOT NULL DEFAULT '' -- what the order book answered; '' while it has not
) STRICT;
`, `
-- Alarms of edges, and the episode that each is part of.
CREATE TABLE alarm (
  id      TEXT PRIMARY KEY,
  episode TEXT NOT NULL REFERENCES episode
) STRICT;
`}
}

// Store keeps episodes and the outbox of requests. It is safe for concurrent use.
type Store struct{ db *sqlite.DB }

// Open opens or creates the store's file.
func Open(ctx context.Context, path string) (*Store, error) {
	db, err := sqlite.Open(ctx, path, migrations())
	if err != nil {
		return nil, fmt.Errorf("opening alerts: %w", err)
	}
	return &Store{db: db}, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Observe takes predictions, in ascending order of event time for each channel.
// Those that were taken before change nothing, so they may come again. faulty
// tells whether a channel's sensor has a fault of its own. It returns how many
// episodes began.
func (s *Store) Observe(ctx context.Context, predictions []model.Prediction, faulty func(asset signal.Asset, sensor string) bool) (begun int, err error) {
	if len(predictions) == 0 {
		return 0, nil
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		begun = 0
		type key struct {
			asset  signal.Asset
			sensor string
		}
		channels := map[key]*channel{}
		for i := range predictions {
			p := &predictions[i]
			k := key{p.Asset, p.Sensor}
			c := channels[k]
			if c == nil {
				var err error
				if c, err = load(ctx, tx, p.Asset, p.Sensor); err != nil {
					return err
				}
				channels[k] = c
			}
			what, e := c.observe(p, faulty(p.Asset, p.Sensor))
			if what == nothing {
				continue
			}
			began, err := note(ctx, tx, what, e)
			if err != nil {
				return err
			}
			if began {
				begun++
			}
		}
		for k, c := range channels {
			state, err := json.Marshal(c)
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO channel (asset, sensor, cursor, state) VALUES (?, ?, ?, ?)
				ON CONFLICT (asset, sensor) DO UPDATE SET cursor = excluded.cursor, state = excluded.state`, k.asset, k.sensor, c.Cursor, string(state))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("noting alerts: %w", err)
	}
	return begun, nil
}

// note keeps what a prediction made of an episode, and tells whether one began.
func note(ctx context.Context, tx *sql.Tx, what change, e *Episode) (began bool, err error) {
	switch what {
	case raised:
		e.Found = Found{Started: e.Started, Raised: e.Raised}
		known, err := e.adopt(ctx, tx)
		if err != nil {
			return false, err
		}
		began = !known
	case cleared:
		e.Found.Cleared = e.Cleared
	case nothing, worse:
	}
	if err := e.refresh(ctx, tx); err != nil {
		return false, err
	}
	e.settle()
	if err := keep(ctx, tx, e); err != nil || !began {
		return false, err
	}
	return true, ask(ctx, tx, e)
}

func load(ctx context.Context, tx *sql.Tx, asset signal.Asset, sensor string) (*channel, error) {
	var state string
	c := &channel{}
	err := tx.QueryRowContext(ctx, `SELECT state FROM channel WHERE asset = ? AND sensor = ?`, asset, sensor).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	return c, json.Unmarshal([]byte(state), c)
}

func keep(ctx context.Context, tx *sql.Tx, e *Episode) error {
	content, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO episode (id, asset, raised, cleared, content) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET cleared = excluded.cleared, content = excluded.content`, e.ID, e.Asset, e.Raised, e.Cleared, string(content))
	return err
}

// Cursor is the newest window that every known channel has seen; 0 without any.
func (s *Store) Cursor(ctx context.Context) (at signal.Micros, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT coalesce(min(cursor), 0) FROM channel`).Scan(&at)
	})
	if err != nil {
		return 0, fmt.Errorf("reading alerts: %w", err)
	}
	return at, nil
}

// Kept is an episode and the order that it led to.
type Kept struct {
	Episode
	Order string // "" while the order book has not answered
}

// Episodes are all of them, the newest first.
func (s *Store) Episodes(ctx context.Context) ([]Kept, error) {
	return s.episodes(ctx, `ORDER BY e.raised DESC, e.id`)
}

// Waiting are the episodes whose request is not delivered, the oldest first.
func (s *Store) Waiting(ctx context.Context) ([]Kept, error) {
	return s.episodes(ctx, `WHERE r.work_order = '' ORDER BY e.raised, e.id`)
}

func (s *Store) episodes(ctx context.Context, where string) (out []Kept, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT e.content, r.work_order FROM episode e JOIN request r ON r.episode = e.id `+where)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var content string
			var k Kept
			if err := rows.Scan(&content, &k.Order); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(content), &k.Episode); err != nil {
				return err
			}
			out = append(out, k)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("reading alerts: %w", err)
	}
	return out, nil
}

// Delivered notes which order an episode's request became.
func (s *Store) Delivered(ctx context.Context, episode, order string) error {
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE request SET work_order = ? WHERE episode = ?`, order, episode)
		return err
	})
	if err != nil {
		return fmt.Errorf("noting that episode %s became order %s: %w", episode, order, err)
	}
	return nil
}
