package datadir

import (
	"path/filepath"
	"strings"
)

// Creating and Deleting are the suffixes of the directory of a block that a server is
// writing or deleting. A server removes such directories when it starts.
const (
	Creating = ".tmp-for-creation"
	Deleting = ".tmp-for-deletion"
)

// AsidePrefix is the prefix of the directory that holds the old contents of a data
// directory during a restore with --replace. A server that starts in the meantime keeps
// the directory: it removes its own temporary names only.
const AsidePrefix = "promdump-replaced-"

// HeadNames returns the names of the directories of a head, in the order in which a
// restore publishes them. The WAL is last: a server ignores the other two without it, so
// an interrupted restore leaves a complete head or none.
func HeadNames() []string { return []string{"chunks_head", "wbl", "wal"} }

// IsTSDBName reports whether name is that of a file or directory in a data directory
// that the TSDB created, and that a restore with --replace removes. It is false for
// snapshots: users create them as backups, and a server never reads them.
func IsTSDBName(name string) bool {
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
