// Package predict is the station between the checked readings and the work
// order: it follows silver, keeps the feature tables, learns models, scores, and
// hands predictions to the alerts. It publishes what twin/health finds of
// sensors.
//
// The arithmetic is in its sub-packages; here is what reads and writes tables.
// One process of a lake runs it.
package predict
