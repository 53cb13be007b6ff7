package datadir

import (
	"path/filepath"
	"strings"
)

// What a server calls a block until it is whole, and while it is deleted. It
// removes both when it starts.
const (
	Creating = ".tmp-for-creation"
	Deleting = ".tmp-for-deletion"
)

// AsidePrefix begins the name of the directory that holds the old contents of a
// data dir while they are replaced. Prometheus knows nothing of it: unlike its own
// temporary names it survives a server that starts in between.
const AsidePrefix = "promdump-replaced-"

// HeadNames are the directories of a head. The WAL is the last to be put in place:
// without it the others mean nothing to a server, so a head is there or it is not.
func HeadNames() []string { return []string{"chunks_head", "wbl", "wal"} }

// Belongs tells whether a name in a data dir is the TSDB's own, to be taken away
// when the data dir's contents are replaced. Snapshots are not: they are backups
// that somebody asked for, and a server never reads them.
func Belongs(name string) bool {
	switch name {
	case "chunks_head", "wbl", "wal", "queries.active":
		return true
	}
	if isULID(name) || strings.HasPrefix(name, "chunk_snapshot.") {
		return true
	}
	ext := filepath.Ext(name)
	return (ext == Creating || ext == Deleting || ext == ".tmp") && isULID(strings.TrimSuffix(name, ext))
}
