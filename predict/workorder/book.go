package workorder

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/internal/sqlite"
	"github.com/headrace/headrace/signal"
)

func migrations() []string {
	return []string{`
CREATE TABLE work_order (
  number       INTEGER PRIMARY KEY AUTOINCREMENT,
  asset        TEXT NOT NULL,
  failure_mode TEXT NOT NULL,
  open         INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  content      TEXT NOT NULL -- JSON
) STRICT;
-- One order at a time for an asset and a way to fail.
CREATE UNIQUE INDEX work_order_open ON work_order (asset, failure_mode) WHERE open = 1;

-- What requests came under which key.
CREATE TABLE request (
  key    TEXT PRIMARY KEY,
  number INTEGER NOT NULL REFERENCES work_order
) STRICT;

CREATE TABLE service (
  number      INTEGER PRIMARY KEY REFERENCES work_order,
  asset       TEXT NOT NULL,
  code        TEXT NOT NULL,
  finished_at INTEGER NOT NULL, -- when the work was done
  recorded_at INTEGER NOT NULL  -- when the book was told
) STRICT;
CREATE INDEX service_asset ON service (asset, finished_at);
`}
}

// Evidence is one number that an order rests on.
type Evidence struct {
	Feature string  `json:"feature"`
	Unit    string  `json:"unit"`
	Value   float64 `json:"value"`
	Healthy float64 `json:"healthy"`
	Z       float64 `json:"z"`
	Share   float64 `json:"share"`
}

// Window is the waveform that an order shows: the one of Sensor that ends at End.
type Window struct {
	Sensor string        `json:"sensor"`
	End    signal.Micros `json:"end"`
}

// Request asks for an order.
type Request struct {
	Key         string        `json:"key"` // the episode: one order a key
	Asset       signal.Asset  `json:"asset"`
	Title       string        `json:"title"`
	Defect      string        `json:"defect"`
	FailureMode string        `json:"failure_mode"` // ISO 14224
	Priority    string        `json:"priority"`
	Confidence  float64       `json:"confidence"` // 0..1
	Sure        string        `json:"sure"`       // the same in words
	Started     signal.Micros `json:"started"`
	Raised      signal.Micros `json:"raised"`
	Score       float64       `json:"score"` // 1 is the limit
	T2          float64       `json:"t2"`
	T2Limit     float64       `json:"t2_limit"`
	Q           float64       `json:"q"`
	QLimit      float64       `json:"q_limit"`
	Model       string        `json:"model"`
	Window      Window        `json:"window"`
	Evidence    []Evidence    `json:"evidence"`
}

// The codes, verdicts and states.
const (
	CodeRepair  = "repair"
	CodeReplace = "replace"
	CodeAdjust  = "adjust"
	CodeInspect = "inspect"
	CodeNoFault = "no_fault"

	Confirmed    = "confirmed"
	NotConfirmed = "not_confirmed"
	Unknown      = "unknown"

	StateOpen   = "open"
	StateClosed = "closed"
)

// Codes and Verdicts list what a closing may say.
func Codes() []string { return []string{CodeRepair, CodeReplace, CodeAdjust, CodeInspect, CodeNoFault} }

// Verdicts lists what a closing may say of the alert.
func Verdicts() []string { return []string{Confirmed, NotConfirmed, Unknown} }

// Closing is what the planner says at the end.
type Closing struct {
	Code       string        `json:"code"`
	FinishedAt signal.Micros `json:"finished_at"`
	Verdict    string        `json:"verdict"`
	By         string        `json:"by"`
	Note       string        `json:"note"`
}

// Order is a work order.
type Order struct {
	ID string `json:"id"` // WO-000001
	Request
	State     string        `json:"state"`
	CreatedAt signal.Micros `json:"created_at"`
	// Again counts the episodes that came while the order was open.
	Again    int           `json:"again,omitempty"`
	ClosedAt signal.Micros `json:"closed_at,omitempty"`
	Closing  *Closing      `json:"closing,omitempty"`
}

// Service is work that reset an asset's service counter.
type Service struct {
	Order                  string
	Code                   string
	FinishedAt, RecordedAt signal.Micros
}

// Options of a book.
type Options struct {
	Clock signal.Clock // stamps orders; nil is the machine's clock
}

// Book is the built-in order book. It is safe for concurrent use.
type Book struct {
	db    *sqlite.DB
	clock signal.Clock
}

// Open opens or creates the book's file.
func Open(ctx context.Context, path string, o Options) (*Book, error) {
	db, err := sqlite.Open(ctx, path, migrations())
	if err != nil {
		return nil, fmt.Errorf("opening the order book: %w", err)
	}
	if o.Clock == nil {
		o.Clock = signal.WallClock{}
	}
	return &Book{db: db, clock: o.Clock}, nil
}

// Close closes the file.
func (b *Book) Close() error { return b.db.Close() }

func id(number int64) string { return fmt.Sprintf("WO-%06d", number) }

// Find returns the order that a key led to; ok is false if there is none.
func (b *Book) Find(ctx context.Context, key string) (o Order, ok bool, err error) {
	err = b.db.Read(ctx, func(tx *sql.Tx) error {
		o, err = find(ctx, tx, `number = (SELECT number FROM request WHERE key = ?)`, key)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return o, false, nil
	}
	return o, err == nil, wrap("looking for the order of "+key, err)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func find(ctx context.Context, tx *sql.Tx, where string, args ...any) (o Order, err error) {
	var number int64
	var content string
	if err := tx.QueryRowContext(ctx, `SELECT number, content FROM work_order WHERE `+where, args...).Scan(&number, &content); err != nil {
		return o, err
	}
	if err := json.Unmarshal([]byte(content), &o); err != nil {
		return o, fmt.Errorf("order %s: %w", id(number), err)
	}
	o.ID = id(number)
	return o, nil
}

// Create makes an order, or returns the one that the key led to already. While
// an order of the asset and failure mode is open, the request is added to it.
// created tells whether there is a new order.
func (b *Book) Create(ctx context.Context, r Request) (o Order, created bool, err error) {
	if r.Key == "" || r.Asset == "" || r.FailureMode == "" || r.Title == "" {
		return o, false, errors.New("creating an order: key, asset, failure mode and title must be given")
	}
	err = b.db.Write(ctx, func(tx *sql.Tx) error {
		created = false
		var err error
		if o, err = find(ctx, tx, `number = (SELECT number FROM request WHERE key = ?)`, r.Key); !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if o, err = find(ctx, tx, `open = 1 AND asset = ? AND failure_mode = ?`, r.Asset, r.FailureMode); err == nil {
			o.Again++
			if err := update(ctx, tx, &o); err != nil {
				return err
			}
			return enter(ctx, tx, r.Key, o.ID)
		} else if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		created = true
		o = Order{Request: r, State: StateOpen, CreatedAt: signal.MicrosOf(b.clock.Now())}
		content, err := json.Marshal(o)
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO work_order (asset, failure_mode, open, created_at, content) VALUES (?, ?, 1, ?, ?)`,
			r.Asset, r.FailureMode, o.CreatedAt, string(content))
		if err != nil {
			return err
		}
		number, err := res.LastInsertId()
		if err != nil {
			return err
		}
		o.ID = id(number)
		return enter(ctx, tx, r.Key, o.ID)
	})
	return o, created, wrap(fmt.Sprintf("creating an order for %s", r.Asset), err)
}

func enter(ctx context.Context, tx *sql.Tx, key, order string) error {
	number, err := numberOf(order)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO request (key, number) VALUES (?, ?)`, key, number)
	return err
}

func update(ctx context.Context, tx *sql.Tx, o *Order) error {
	number, err := numberOf(o.ID)
	if err != nil {
		return err
	}
	content, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE work_order SET open = ?, content = ? WHERE number = ?`, o.State == StateOpen, string(content), number)
	return err
}

// ErrNoOrder says that there is no order of that number.
var ErrNoOrder = errors.New("there is no such order")

func numberOf(order string) (n int64, err error) {
	if _, err := fmt.Sscanf(order, "WO-%d", &n); err != nil || n <= 0 {
		return 0, fmt.Errorf("%q: %w; an order is like WO-000001", order, ErrNoOrder)
	}
	return n, nil
}

// Get returns an order.
func (b *Book) Get(ctx context.Context, order string) (o Order, err error) {
	number, err := numberOf(order)
	if err != nil {
		return o, err
	}
	err = b.db.Read(ctx, func(tx *sql.Tx) error {
		o, err = find(ctx, tx, `number = ?`, number)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoOrder
	}
	return o, wrap("reading order "+order, err)
}

// Filter narrows a list; its zero value is all.
type Filter struct{ State string }

// List returns orders, the newest first.
func (b *Book) List(ctx context.Context, f Filter) (out []Order, err error) {
	err = b.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT number, content FROM work_order ORDER BY number DESC`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var number int64
			var content string
			if err := rows.Scan(&number, &content); err != nil {
				return err
			}
			var o Order
			if err := json.Unmarshal([]byte(content), &o); err != nil {
				return fmt.Errorf("order %s: %w", id(number), err)
			}
			if o.ID = id(number); f.State == "" || f.State == o.State {
				out = append(out, o)
			}
		}
		return rows.Err()
	})
	return out, wrap("listing orders", err)
}

// InvalidError says why an order cannot be closed so.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return e.Reason }

// ErrClosed says that an order is closed, and otherwise.
var ErrClosed = errors.New("the order is closed already, with another closing")

func (c *Closing) check(now time.Time) error {
	refuse := func(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }
	switch {
	case !slices.Contains(Codes(), c.Code):
		return refuse("code %q is not one of %s", c.Code, strings.Join(Codes(), ", "))
	case !slices.Contains(Verdicts(), c.Verdict):
		return refuse("verdict %q is not one of %s", c.Verdict, strings.Join(Verdicts(), ", "))
	case c.FinishedAt == 0:
		return refuse("finished_at is missing; give the time at which the work was done")
	case c.FinishedAt.Time().After(now.Add(5 * time.Minute)):
		return refuse("finished_at %s lies ahead of the plant's clock, %s; give the time at which the work was done", c.FinishedAt.Time().Format(time.RFC3339), now.Format(time.RFC3339))
	case len(c.Note) > 4000 || len(c.By) > 200:
		return refuse("the note is longer than 4000 bytes, or the name than 200")
	}
	return nil
}

// CloseOrder records how an order ended. Closing it again in the same way
// changes nothing, in another way it is refused. A repair or replacement resets
// the asset's service counter, at the time when it was finished.
func (b *Book) CloseOrder(ctx context.Context, order string, c Closing) (o Order, err error) {
	number, err := numberOf(order)
	if err != nil {
		return o, err
	}
	now := b.clock.Now()
	if err := c.check(now); err != nil {
		return o, err
	}
	err = b.db.Write(ctx, func(tx *sql.Tx) error {
		var err error
		if o, err = find(ctx, tx, `number = ?`, number); err != nil {
			return err
		}
		if o.State == StateClosed {
			if *o.Closing != c {
				return ErrClosed
			}
			return nil
		}
		o.State, o.ClosedAt, o.Closing = StateClosed, signal.MicrosOf(now), &c
		if err := update(ctx, tx, &o); err != nil {
			return err
		}
		if c.Code != CodeRepair && c.Code != CodeReplace {
			return nil
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO service (number, asset, code, finished_at, recorded_at) VALUES (?, ?, ?, ?, ?)`,
			number, o.Asset, c.Code, c.FinishedAt, o.ClosedAt)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoOrder
	}
	return o, wrap("closing order "+order, err)
}

// Services are an asset's repairs and replacements, the newest first.
func (b *Book) Services(ctx context.Context, asset signal.Asset) (out []Service, err error) {
	err = b.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT number, code, finished_at, recorded_at FROM service WHERE asset = ? ORDER BY finished_at DESC, number DESC`, asset)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var s Service
			var number int64
			if err := rows.Scan(&number, &s.Code, &s.FinishedAt, &s.RecordedAt); err != nil {
				return err
			}
			s.Order = id(number)
			out = append(out, s)
		}
		return rows.Err()
	})
	return out, wrap(fmt.Sprintf("reading the services of %s", asset), err)
}
