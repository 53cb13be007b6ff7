// Package check judges what a user would download: it makes the release as
// goreleaser and tools/release make it, of the working tree, and looks into every
// file of it. Twice, from two directories: the files must be the same.
//
// make release-check does so for this machine's system; make snapshot makes all
// systems' and has them judged (PROMDUMP_E2E_DIST).
package check
