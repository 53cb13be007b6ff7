// Package query answers PromQL over opened dumps, as Prometheus would.
//
// A [Server] puts Prometheus' own HTTP API in front of a view of dumps, made of
// Prometheus' own packages, so that Grafana, promtool and another Prometheus
// (remote read) cannot tell the difference:
//
//	view ─> engine ─> Server, one answer (Ask), an Export
//
// # Limits
//
// Requests pass the admission, which gives each an account of the budget, and ends a
// request by cancelling its context. The meter is the storage that charges the account.
// The Engine has a Prometheus engine for each level of the budget. The codec and the
// answerWriter stream answers that Prometheus' API would encode as a whole.
//
// # What is served, and what is not
//
// Nothing is ever written: there is no appender behind the API, and what a
// Prometheus would let one change is refused by its path before it gets there.
// A browser is let in by the names in Host and Origin, since any page on the web
// may point a name of its own at 127.0.0.1.
//
// What is not promised: exemplars and metric metadata, which no block holds (the
// API answers that there are none); status/tsdb, which is of the head in
// Prometheus, is of all blocks here. A query without a time is answered for the
// end of the dump, not for now.
package query
