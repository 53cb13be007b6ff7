// Package archive writes and reads the dump file.
//
// A dump is a tar, compressed with gzip, zstd or nothing, that unpacks to a
// Prometheus data dir:
//
//	promdump.json                        first: what this is, see Manifest
//	<ULID>/meta.json, index, tombstones  the blocks
//	<ULID>/chunks/000001
//	wal/, wbl/, chunks_head/             only when the head was taken raw
//	SHA256SUMS                           last: a line for every other entry
//
// The end of a stream is not success: pipes, pods and disks lose the tail of a
// file and say nothing. So a dump is whole only if SHA256SUMS is its last
// entry, every digest in it is right, and both the tar and the compression
// around it have ended as they should. Reader gives io.EOF in that case alone;
// a dump that was cut is ErrIncomplete, one whose bytes changed is ErrDamaged.
//
// Any tar opens a dump. The reverse is not promised: Reader takes what Writer
// writes and refuses what a general tar may hold (directories, links, long
// names, sparse files, extension headers), for dumps come from strangers.
//
// The package does not know what a block is. That an entry has the name of an
// index does not mean that it is one. Digests find damage, not malice: who can
// change the dump can change SHA256SUMS too.
//
// The format is specified in docs/format.md.
package archive

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Format is the version of the dump format that this package writes, and the
// only one that it reads.
const Format = 1

// Names of the entries that say something about the dump. They are no part of
// the data dir.
const (
	ManifestName = "promdump.json"
	NotesName    = "promdump-notes.json"
	SumsName     = "SHA256SUMS"
)

// Compression is how the tar is compressed.
type Compression string

const (
	Gzip Compression = "gzip" // every tar -xzf opens it; the default
	Zstd Compression = "zstd" // smaller and faster
	None Compression = "none"
)

// ParseCompression reads the name of a compression. The empty name is Gzip.
func ParseCompression(s string) (Compression, error) {
	switch c := Compression(s); c {
	case "":
		return Gzip, nil
	case Gzip, Zstd, None:
		return c, nil
	}
	return "", fmt.Errorf("unknown compression %q: use gzip, zstd or none", s)
}

// Entry is one file of the dump.
type Entry struct {
	Name string // relative to the data dir, with slashes
	Size int64  // bytes
}

// Limits bound what a dump may hold, so that reading a hostile one ends. Zero
// fields mean the defaults.
type Limits struct {
	File    int64 // bytes of an entry; default 64 GiB, the most an index can have
	Text    int64 // bytes of promdump.json, SHA256SUMS, meta.json; default 64 MiB
	Entries int   // entries, SHA256SUMS aside; default 500,000
}

func (l Limits) withDefaults() Limits {
	if l.File == 0 {
		l.File = 64 << 30
	}
	if l.Text == 0 {
		l.Text = 64 << 20
	}
	if l.Entries == 0 {
		// So many lines of SHA256SUMS fit into Text.
		l.Entries = 500_000
	}
	return l
}

func (l Limits) checkSize(name string, size int64) error {
	limit := l.File
	if name == ManifestName || name == NotesName || name == SumsName || strings.HasSuffix(name, "/meta.json") {
		limit = min(limit, l.Text)
	}
	if size < 0 || size > limit {
		return fmt.Errorf("a size of %d bytes is beyond the limit of %d", size, limit)
	}
	return nil
}

// entryName matches every name that a dump may contain, except ManifestName, NotesName
// and SumsName. In a block a number has one spelling only: chunks/000001 and
// chunks/0000001 would be the same segment twice. Segments of the log had six digits
// until March 2020, and a server may have both. No two of these names differ only in
// case, so a dump unpacks on any file system.
var entryName = regexp.MustCompile(`^(?:` +
	`[0-7][0-9A-HJKMNP-TV-Z]{25}/(?:meta\.json|index|tombstones|chunks/` + six + `)` +
	`|wal/(?:checkpoint\.` + sixOrEight + `/)?` + sixOrEight +
	`|wbl/` + eight +
	`|chunks_head/` + six +
	`)$`)

const (
	six   = `(?:[0-9]{6}|[1-9][0-9]{6,9})`
	eight = `(?:[0-9]{8}|[1-9][0-9]{8,9})`

	sixOrEight = `(?:[0-9]{6}|` + eight + `)`
)

// checkName says whether writer and reader take an entry of that name.
func checkName(name string) error {
	if name == ManifestName || name == NotesName || name == SumsName || entryName.MatchString(name) {
		return nil
	}
	return errors.New("not a name that a dump may hold")
}

var (
	// ErrNotDump: the file never was a dump.
	ErrNotDump = errors.New("not a promdump dump")

	// ErrIncomplete: the dump was cut, or its writer never finished. What was
	// read of it is not verified.
	ErrIncomplete = errors.New("the dump is incomplete")

	// ErrDamaged matches every DamageError.
	ErrDamaged = errors.New("the dump is damaged")
)

// DamageError says where and how a dump is not what its writer wrote, or what no
// writer would write. It matches ErrDamaged.
type DamageError struct {
	Entry  string // empty if the damage is outside of any entry
	Reason string
}

func (e *DamageError) Error() string {
	if e.Entry == "" {
		return "the dump is damaged: " + e.Reason
	}
	return fmt.Sprintf("the dump is damaged at entry %q: %s", e.Entry, e.Reason)
}

func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// FormatError refuses a dump of a format that this program does not know.
type FormatError struct {
	Format int
	Tool   string // that wrote it
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("the dump has format %d, written by %q; this promdump reads format %d", e.Format, e.Tool, Format)
}
