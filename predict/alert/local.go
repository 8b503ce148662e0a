package alert

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/headrace/headrace/signal"
)

// Local is an alarm that a rule of an edge raised or cleared.
type Local struct {
	Asset signal.Asset
	signal.Alarm
}

// Found is when the centre itself found an episode in the data; zero if it did not.
type Found struct {
	Started signal.Micros `json:"started"`
	Raised  signal.Micros `json:"raised"`
	Cleared signal.Micros `json:"cleared,omitempty"`
}

// settle makes the episode's times of what the centre found and what the edges
// said: it began with the first and lasts as long as any.
func (e *Episode) settle() {
	if e.Found == (Found{}) && e.Model != "" {
		e.Found = Found{e.Started, e.Raised, e.Cleared}
	}
	spans := make([]Found, 0, len(e.Alarms)+1)
	if e.Found != (Found{}) {
		spans = append(spans, e.Found)
	}
	for _, a := range e.Alarms {
		spans = append(spans, Found{a.Started, a.Raised, a.Cleared})
	}
	for i, s := range spans {
		if i == 0 {
			e.Started, e.Raised, e.Cleared = s.Started, s.Raised, s.Cleared
			continue
		}
		e.Started, e.Raised = min(e.Started, s.Started), min(e.Raised, s.Raised)
		if e.Cleared == 0 || s.Cleared == 0 {
			e.Cleared = 0
		} else {
			e.Cleared = max(e.Cleared, s.Cleared)
		}
	}
}

// near is how far apart an edge and the centre may see the same fault: one looks at
// samples, the other at windows and several of them.
const near = 10 * signal.Micros(60_000_000)

// meet tells whether two times overlap, or are near each other; 0 as the end of one
// says that it lasts.
func meet(aFrom, aTo, bFrom, bTo signal.Micros) bool {
	return (bTo == 0 || aFrom <= bTo+near) && (aTo == 0 || bFrom <= aTo+near)
}

// Local takes what the local rules of edges say, in any order and as often as it
// comes. An alarm is part of the episode that the centre found on the same channel
// with the same failure mode at the same time; otherwise it begins one. It returns
// how many began.
func (s *Store) Local(ctx context.Context, alarms []Local) (begun int, err error) {
	if len(alarms) == 0 {
		return 0, nil
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		begun = 0
		over := map[string]bool{}
		for _, l := range alarms {
			over[l.ID] = over[l.ID] || l.State == signal.AlarmCleared
		}
		for i := range alarms {
			if over[alarms[i].ID] && alarms[i].State == signal.AlarmRaised {
				continue // its end is known, and says more
			}
			is, err := takeLocal(ctx, tx, &alarms[i])
			if err != nil {
				return err
			}
			if is {
				begun++
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("noting the alarms of edges: %w", err)
	}
	return begun, nil
}

func takeLocal(ctx context.Context, tx *sql.Tx, l *Local) (begun bool, err error) {
	var known string
	err = tx.QueryRowContext(ctx, `SELECT episode FROM alarm WHERE id = ?`, l.ID).Scan(&known)
	switch {
	case err == nil:
		e, err := episodeOf(ctx, tx, known)
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(e.Alarms, func(a signal.Alarm) bool { return a.ID == l.ID })
		if i < 0 || e.Alarms[i].State == signal.AlarmCleared || l.State == signal.AlarmRaised {
			return false, nil
		}
		e.Alarms[i] = l.Alarm
		e.settle()
		return false, keep(ctx, tx, e)
	case !errors.Is(err, sql.ErrNoRows):
		return false, err
	}
	e, err := find(ctx, tx, l.Asset, l.Started, func(e *Episode) bool {
		if e.Model == "" || e.Sensor != l.Channel || e.FailureMode != l.FailureMode {
			return false
		}
		e.settle()
		return meet(e.Found.Started, e.Found.Cleared, l.Started, l.Cleared)
	})
	if err != nil {
		return false, err
	}
	if begun = e == nil; begun {
		e = &Episode{
			ID: l.ID, Asset: l.Asset, Sensor: l.Channel, Defect: Inconclusive, FailureMode: l.FailureMode, Confidence: localConfidence, PeakAt: l.Raised,
		}
	}
	e.Alarms = append(e.Alarms, l.Alarm)
	e.settle()
	if err := keep(ctx, tx, e); err != nil {
		return false, err
	}
	if begun {
		if err := ask(ctx, tx, e); err != nil {
			return false, err
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO alarm (id, episode) VALUES (?, ?)`, l.ID, e.ID)
	return begun, err
}

// localConfidence is that of an episode of which only an edge's rule speaks: that
// a level was passed is certain, what it means is not.
const localConfidence = 0.5

// ask puts the request for an episode's order into the outbox, once.
func ask(ctx context.Context, tx *sql.Tx, e *Episode) error {
	_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO request (episode) VALUES (?)`, e.ID)
	return err
}

// adopt makes what the centre has just found part of the episode of which an edge
// has spoken, and tells whether there is one.
func (e *Episode) adopt(ctx context.Context, tx *sql.Tx) (bool, error) {
	before, err := find(ctx, tx, e.Asset, e.Started, func(o *Episode) bool {
		return o.Sensor == e.Sensor && o.FailureMode == e.FailureMode && slices.ContainsFunc(o.Alarms, func(a signal.Alarm) bool {
			return meet(a.Started, a.Cleared, e.Started, e.Raised)
		})
	})
	if err != nil || before == nil {
		return false, err
	}
	e.ID = before.ID
	if f := before.Found; f != (Found{}) {
		e.Found.Started, e.Found.Raised = min(e.Found.Started, f.Started), min(e.Found.Raised, f.Raised)
		if before.Peak > e.Peak {
			e.Peak, e.PeakAt, e.T2, e.T2Limit, e.Q, e.QLimit, e.Evidence = before.Peak, before.PeakAt, before.T2, before.T2Limit, before.Q, before.QLimit, before.Evidence
		}
	}
	return true, nil
}

// refresh takes over what edges have said since the episode was kept last.
func (e *Episode) refresh(ctx context.Context, tx *sql.Tx) error {
	kept, err := episodeOf(ctx, tx, e.ID)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		e.Alarms = kept.Alarms
	}
	return err
}

func episodeOf(ctx context.Context, tx *sql.Tx, id string) (*Episode, error) {
	var content string
	if err := tx.QueryRowContext(ctx, `SELECT content FROM episode WHERE id = ?`, id).Scan(&content); err != nil {
		return nil, err
	}
	e := &Episode{}
	return e, json.Unmarshal([]byte(content), e)
}

// find is the earliest episode of an asset that fits and was not over long before a
// time, nil if there is none.
func find(ctx context.Context, tx *sql.Tx, asset signal.Asset, from signal.Micros, fits func(*Episode) bool) (*Episode, error) {
	rows, err := tx.QueryContext(ctx, `SELECT content FROM episode WHERE asset = ? AND (cleared = 0 OR cleared >= ?) ORDER BY raised, id`, asset, from-near)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var content string
		if err := rows.Scan(&content); err != nil {
			return nil, err
		}
		e := &Episode{}
		if err := json.Unmarshal([]byte(content), e); err != nil {
			return nil, err
		}
		if fits(e) {
			return e, nil
		}
	}
	return nil, rows.Err()
}
