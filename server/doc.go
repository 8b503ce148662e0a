// Package server is the HTTP face of a Headrace process: the native API under
// /api/v1 with its OpenAPI document, live updates as server-sent events,
// metrics and the embedded page.
//
// It shows what the registry, the live twin and the lake say and computes ages
// and states of it; it stores nothing and decides nothing. Which roles run in a
// process is its sub-package roles.
package server
