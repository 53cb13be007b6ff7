// Package agentbin has the agents: the programs that kubectl promdump puts into
// containers, one for each architecture.
//
// `make build` compiles the common ones into bin/, compressed, with the digests
// of all, and from there they are embedded. For an architecture that is not
// embedded (or when one is asked for by force) the release's archive of agents is
// downloaded into the system's temporary directory, where it stays for the next
// time.
//
// Whoever may write there may have put anything there, and so may whoever
// answers in the name of the release. So an agent is whatever has the digest that
// was built into this program, checked each time on the bytes that are then
// used, and nothing else. A program that was built without digests (go install
// compiles no agents) takes the archive's digest from beside the archive instead,
// each time, and only over https. This finds damage and keeps other users of the
// machine out, but whoever can change the release can change both; a note says so.
//
// What is not promised: that a downloaded agent's Gzip is what the release
// compressed, and that the archive is still there the next time.
package agentbin

import (
	"bytes"
	"context"
	"embed"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// A directory, since a pattern that matches nothing does not compile: without
// make build there is just the README.
//
//go:embed bin
var bin embed.FS

// Agent is the program for one architecture.
type Agent struct {
	OS, Arch string   // as Go names them
	Digest   [32]byte // SHA-256 of the program
	Gzip     []byte   // the program, compressed
	Size     int64    // bytes of the program

	From  string   // for a person: "embedded", a URL or a file
	Notes []string // what a person must know about where it came from
}

// Open reads the program.
func (a *Agent) Open() (io.ReadCloser, error) {
	z, err := gzip.NewReader(bytes.NewReader(a.Gzip))
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", ProgramName(a.Arch), err)
	}
	return z, nil
}

// ProgramName is an agent's name in the release's archive and in SHA256SUMS.
func ProgramName(arch string) string { return "promdump-agent-linux-" + arch }

var machines = map[string]string{
	"x86_64": "amd64", "aarch64": "arm64", "armv6l": "arm", "armv7l": "arm", "armv8l": "arm",
	"i386": "386", "i486": "386", "i586": "386", "i686": "386",
}

// Arch is Go's name of what uname -m calls a machine. What it does not know is
// given back as it is: several names are the same, and Get knows what there is.
func Arch(machine string) string {
	if arch, ok := machines[machine]; ok {
		return arch
	}
	return machine
}

// Digests are those of the released agents, by architecture.
type Digests map[string][32]byte

// Options say where agents come from.
type Options struct {
	// Version is this program's: that of the release to download from. What is not
	// a release's version (a commit, "(devel)") is as good as none.
	Version string

	// URL is where the release's files are, or an archive of agents (….tar.gz).
	// Empty: our releases at GitHub.
	URL string

	// Force downloads, whatever is embedded or was downloaded before. Without a URL, a
	// program that is no release has nothing to download from: then the embedded agent,
	// which is the only one of its version, is used all the same, and a note says so.
	Force bool

	Dir     string       // where the archive stays; empty: os.TempDir
	Logger  *slog.Logger // nil: silence
	Client  *http.Client // nil: one that uses the environment's proxies
	Digests Digests      // nil: those that were built in

	stall time.Duration // tests wait less
}

// Embedded is an agent that was built into this program.
func Embedded(arch string) (*Agent, bool) { return embedded(bin, arch) }

func embedded(fsys fs.FS, arch string) (*Agent, bool) {
	digest, ok := builtIn(fsys)[arch]
	if !ok {
		return nil, false
	}
	z, err := fs.ReadFile(fsys, "bin/"+ProgramName(arch)+".gz")
	if err != nil || len(z) < 4 {
		return nil, false
	}
	// A gzip member ends with the size of what is in it.
	size := int64(binary.LittleEndian.Uint32(z[len(z)-4:]))
	return &Agent{OS: "linux", Arch: arch, Digest: digest, Gzip: z, Size: size, From: "embedded"}, true
}

// builtIn gives no digests if there are none. A list that cannot be read gives
// none too, which a test finds before a user does.
func builtIn(fsys fs.FS) Digests {
	text, err := fs.ReadFile(fsys, "bin/SHA256SUMS")
	if err != nil {
		return nil
	}
	sums, err := parseSums(string(text))
	if err != nil {
		return nil
	}
	digests := make(Digests, len(sums))
	for name, digest := range sums {
		if arch, ok := strings.CutPrefix(name, ProgramName("")); ok {
			digests[arch] = digest
		}
	}
	return digests
}

// Get gives the agent for an architecture, as Go names it: the embedded one, or
// with Force or where there is none, that of the release. Its errors are *Error,
// and a canceled ctx's is in them.
func Get(ctx context.Context, arch string, o Options) (*Agent, error) { return get(ctx, bin, arch, o) }

func get(ctx context.Context, in fs.FS, arch string, o Options) (*Agent, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a, ok := embedded(in, arch)
	if ok && o.Force && o.URL == "" && release(o.Version) == "" {
		a.Notes = append(a.Notes, fmt.Sprintf("%q is no release, so there is none to download an agent from: the agent that is built in is used", o.Version))
		o.Force = false
	}
	if ok && !o.Force {
		o.Logger.Debug("agent", "arch", arch, "from", a.From, "bytes", len(a.Gzip))
		return a, nil
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if o.Client == nil {
		o.Client = &http.Client{}
	}
	if o.Digests == nil {
		o.Digests = builtIn(in)
	}
	if o.stall == 0 {
		o.stall = stall
	}
	return download(ctx, arch, o)
}

var (
	released = regexp.MustCompile(`^v?([0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?)$`)
	pseudo   = regexp.MustCompile(`[.-][0-9]{14}-[0-9a-f]{12}$`) // what Go calls a commit
)

// release is the name of a release, as its tag has it; empty if version is none.
func release(version string) string {
	m := released.FindStringSubmatch(version)
	if m == nil || pseudo.MatchString(version) {
		return ""
	}
	return "v" + m[1]
}
