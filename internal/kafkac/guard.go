package kafkac

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ResetError says that a partition ends before what was already taken from
// it: another log stands in the old one's place.
type ResetError struct {
	TopicPartition
	Committed, End int64
}

func (e *ResetError) Error() string {
	return fmt.Sprintf("the spine was reset: %s ends at offset %d, but the tables already hold it up to %d; "+
		"restore the spine's directory, or start with a new topic, which has a new topic id", e.TopicPartition, e.End, e.Committed)
}

// TrimmedError says that a partition starts after what was taken from it:
// records are gone that no table holds.
type TrimmedError struct {
	TopicPartition
	Committed, Start int64
}

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("records are missing: %s starts at offset %d, but the tables hold it only up to %d; "+
		"restore the spine's directory, or lengthen the topic's retention and let the edges send again", e.TopicPartition, e.Start, e.Committed)
}

// CheckCommitted compares how far partitions were taken with what they hold,
// and returns a [*ResetError] or [*TrimmedError] for each that does not fit. A
// partition that was never taken from (no entry in committed) must start at 0.
func CheckCommitted(committed map[TopicPartition]int64, held map[TopicPartition]Offsets) error {
	var errs []error
	partitions := make([]TopicPartition, 0, len(held))
	for tp := range held {
		partitions = append(partitions, tp)
	}
	for tp := range committed {
		if _, ok := held[tp]; !ok {
			partitions = append(partitions, tp)
		}
	}
	slices.SortFunc(partitions, comparePartitions)
	for _, tp := range partitions {
		at, bounds := committed[tp], held[tp]
		switch {
		case bounds.End < at:
			errs = append(errs, &ResetError{tp, at, bounds.End})
		case bounds.Start > at:
			errs = append(errs, &TrimmedError{tp, at, bounds.Start})
		}
	}
	return errors.Join(errs...)
}

func comparePartitions(a, b TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}
