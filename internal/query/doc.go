// Package query serves and evaluates PromQL over opened dumps, as Prometheus does.
//
// A [Server] serves the Prometheus HTTP API over a view of dumps. It uses Prometheus'
// own packages, so Grafana, promtool and another Prometheus (remote read) get the answers
// of a real server:
//
//	view ─> engine ─> Server, one query (Ask), an Export
//
// # Limits
//
// Requests pass the admission, which gives each an account of the budget, and ends a
// request by cancelling its context. The meter is the storage that charges the account.
// The Engine has a Prometheus engine for each level of the budget. The codec and the
// answerWriter stream answers that Prometheus' API would encode as a whole.
//
// # Differences from Prometheus
//
// The server is read-only: the API has no appender, and the guard refuses the paths that
// change a Prometheus before the API sees them. The guard also checks Host and Origin,
// because any web page may point a name of its own at 127.0.0.1.
//
// The API returns no exemplars and no metric metadata, because blocks contain none.
// status/tsdb describes all blocks; in Prometheus it describes the head. A query without
// a time is evaluated at the end of the dump, not at the current time.
package query
