// Package delta reads and writes the transaction log of Delta Lake tables on a
// local file system: protocol reader 1, writer 2.
//
// It knows the log alone. Data files are described to it by actions; it never
// opens one, and it imports neither a Parquet library nor an SQL engine.
//
// A commit is one log entry, written whole, made durable, and put in place
// only if its version is absent, so several processes may write one table. A
// transaction step ([TxnStep]) makes a commit valid only while the table's
// stored number of an application equals the one the work started from: that
// is what makes a stage of the pipeline exactly-once.
//
// Checkpoints are tolerated beside the log and not read: a table whose early
// entries were cleaned away is refused by name.
package delta

import (
	"errors"
	"fmt"
)

// The errors that callers tell apart with errors.Is.
var (
	// ErrTableExists: Create found a log.
	ErrTableExists = errors.New("table exists")
	// ErrNotTable: Open found no log.
	ErrNotTable = errors.New("not a Delta table")
	// ErrNoVersion: the version asked for is not there.
	ErrNoVersion = errors.New("no such version")
	// ErrUnsupported: the table needs something of the protocol that this
	// package does not know.
	ErrUnsupported = errors.New("unsupported by this reader or writer")
	// ErrCorrupt: the log cannot be what a writer left there.
	ErrCorrupt = errors.New("corrupt Delta log")
	// ErrConflict: see [ConflictError].
	ErrConflict = errors.New("commit conflict")
	// ErrTxnMoved: see [TxnMovedError].
	ErrTxnMoved = errors.New("transaction number moved")
	// ErrUnknownOutcome: the file may or may not be in place. Look again.
	ErrUnknownOutcome = errors.New("outcome unknown")
)

// TxnMovedError says that the table's stored number of an application is not
// the one that the commit started from: somebody else has done the work, or
// an earlier attempt of ours did. Stored == the step's To means "already
// committed".
type TxnMovedError struct {
	Table  string
	AppID  string
	From   int64 // what the commit expected
	Stored int64 // what the table holds
}

func (e *TxnMovedError) Error() string {
	return fmt.Sprintf("committing to %s: transaction %q stands at %d, not at %d where this work started", e.Table, e.AppID, e.Stored, e.From)
}

// Is makes errors.Is(err, ErrTxnMoved) true.
func (e *TxnMovedError) Is(target error) bool { return target == ErrTxnMoved }

// ConflictError says why a commit cannot be placed after the winners' commits.
type ConflictError struct {
	Table   string
	Version int64 // the version that was attempted
	Reason  string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("committing version %d of %s: %s", e.Version, e.Table, e.Reason)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
