// Package signal holds the words that every station of Headrace shares: the
// path of a sensor, a reading, a batch of them, quality, the plant's clock and
// sets of message numbers.
//
// It is the lowest package of the tree and imports the standard library only.
// It knows no wire format, no disk format and no transport; those live with
// the station that owns them.
//
// # Words
//
//   - path: site/line/asset/sensor; asset: site/line/asset.
//   - stream: everything one edge says of one asset in one class; the unit of
//     order and of deduplication, written "site/line/asset:class".
//   - event time: when a value was measured. Arrival never replaces it.
//   - alive time: the last proof that the sensor still stands behind a value.
package signal
