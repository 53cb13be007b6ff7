package restore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

const (
	ulidA = "01K0000000000000000000000A"
	ulidB = "01K0000000000000000000000B"
	day   = 24 * time.Hour
)

// planned is a block of a dump that ends so long before noon.
func planned(ulid string, before time.Duration) PlannedBlock {
	end := ms(noon).Add(-before)
	return PlannedBlock{
		ULID: ulid, MinTime: end.Add(-2 * time.Hour), MaxTime: end, Series: 1, Samples: 10, Bytes: 1000, Level: 1,
		origin: origin{ulid: ulid, sources: []string{ulid}, samples: 10},
	}
}

// targetOf is the inventory of a data dir with room for everything, in which a server has
// blocks that end so long before noon.
func targetOf(ends ...time.Duration) *wire.Target {
	t := &wire.Target{Dir: "/data", Exists: true, Writable: true, Free: 1 << 40, Size: 1 << 40}
	for i, before := range ends {
		id := fmt.Sprintf("01J0000000000000000000000%d", i)
		end := ms(noon).Add(-before).UnixMilli()
		meta := fmt.Sprintf(`{"version":1,"ulid":%q,"minTime":%d,"maxTime":%d,"compaction":{"level":1,"sources":[%q]}}`, id, end-2*hour, end, id)
		t.Blocks = append(t.Blocks, wire.TargetBlock{ULID: id, Meta: []byte(meta)})
		t.Own = append(t.Own, id)
	}
	return t
}

// TestPlan is the table of what is refused and what is done.
func TestPlan(t *testing.T) {
	fatal := []datadir.Damage{{File: "wal/00000003", Err: errors.New("a gap"), Fatal: true}}
	torn := []datadir.Damage{{File: "wal/00000003", Err: errors.New("torn")}}
	default15 := Retention{Time: 15 * day, From: "Prometheus' default", Assumed: true}
	for name, c := range map[string]struct {
		edit   func(*wire.Target)
		target *wire.Target // nil: an empty one
		dump   []PlannedBlock
		head   *RawHead
		inDir  bool // the dump is in place
		policy Policy

		refused []RefusalKind
		skipped int
		raw     bool
		notes   string // in one of them
	}{
		"into an empty one":      {dump: []PlannedBlock{planned(ulidA, 0)}},
		"one that is to be made": {edit: func(t *wire.Target) { t.Exists = false }, dump: []PlannedBlock{planned(ulidA, 0)}},
		"not a data dir":         {edit: func(t *wire.Target) { t.Foreign = []string{"src", "go.mod"} }, refused: []RefusalKind{NotDataDir}},

		"retention: recent": {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 14*day)}, policy: Policy{Retention: default15}},
		"retention: to the millisecond": {
			target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 15*day)}, policy: Policy{Retention: default15}, refused: []RefusalKind{OutOfDefault},
		},
		"retention: not quite":              {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 15*day-time.Millisecond)}, policy: Policy{Retention: default15}},
		"retention: alone it is the newest": {dump: []PlannedBlock{planned(ulidA, 400*day)}, policy: Policy{Retention: default15}},
		"retention: given": {
			target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 14*day)}, policy: Policy{Retention: Retention{Time: 10 * day}}, refused: []RefusalKind{OutOfTime},
		},
		"retention: the target's own": {
			target: targetOf(20*day, 19*day), dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{Retention: default15}, refused: []RefusalKind{OutOfDefault},
		},
		"retention: ignored": {
			target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 400*day)}, policy: Policy{Retention: default15, IgnoreRetention: true},
			notes: "at once delete 1 of the 1 restored",
		},
		"retention: replaced": {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 400*day)}, policy: Policy{Retention: default15, Replace: true}},
		"retention: none":     {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 400*day)}},
		"retention: by size":  {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{Retention: Retention{Size: "5GB"}}, notes: "at most 5GB"},
		"retention: from the head on": {
			target: targetOf(14 * day), edit: func(t *wire.Target) { t.HeadTime, t.HeadBytes = noon, 1 },
			dump: []PlannedBlock{planned(ulidA, 16*day)}, policy: Policy{Retention: default15}, notes: "writes its next block",
		},

		"space: too little":  {edit: func(t *wire.Target) { t.Free, t.Size = 1049, 1000 }, dump: []PlannedBlock{planned(ulidA, 0)}, refused: []RefusalKind{LittleSpace}},
		"space: just enough": {edit: func(t *wire.Target) { t.Free, t.Size = 1050, 1000 }, dump: []PlannedBlock{planned(ulidA, 0)}},
		"space: it is there": {edit: func(t *wire.Target) { t.Free, t.Size = 50, 1000 }, dump: []PlannedBlock{planned(ulidA, 0)}, inDir: true},
		"space: none is left for the server": {
			edit: func(t *wire.Target) { t.Free, t.Size = 49, 1000 }, dump: []PlannedBlock{planned(ulidA, 0)}, inDir: true, refused: []RefusalKind{LittleSpace},
		},
		"space: ignored":   {edit: func(t *wire.Target) { t.Free, t.Size = 1, 1000 }, dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{IgnoreSpace: true}},
		"space: not known": {edit: func(t *wire.Target) { t.Free, t.Size = -1, -1 }, dump: []PlannedBlock{planned(ulidA, 0)}},
		"space: of a raw head": {
			edit: func(t *wire.Target) { t.Free, t.Size = 1100, 1000 }, dump: []PlannedBlock{planned(ulidA, 0)}, head: &RawHead{Bytes: 51}, raw: true,
			refused: []RefusalKind{LittleSpace},
		},

		"uid: may not write": {edit: func(t *wire.Target) { t.Writable, t.UID, t.AgentUID = false, 1000, 65534 }, dump: []PlannedBlock{planned(ulidA, 0)}, refused: []RefusalKind{NotWritable}},
		"uid: another":       {edit: func(t *wire.Target) { t.UID, t.AgentUID = 65534, 1000 }, dump: []PlannedBlock{planned(ulidA, 0)}, notes: "not delete or compact them"},

		"sidecar: a first block": {edit: func(t *wire.Target) { t.Thanos = true }, dump: []PlannedBlock{planned(ulidA, 0)}, refused: []RefusalKind{Uploads}},
		"sidecar: allowed":       {edit: func(t *wire.Target) { t.Thanos = true }, dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{AllowUpload: true}, notes: "will upload 1 blocks"},
		"sidecar: compacted": {
			edit: func(t *wire.Target) { t.Thanos = true }, dump: []PlannedBlock{{ULID: ulidA, Level: 2}}, notes: "leaves these blocks alone",
		},

		"version: before 2.39":       {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{Version: "2.38.0"}, refused: []RefusalKind{OldServer}},
		"version: 2.39":              {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{Version: "2.39.0-rc.0"}},
		"version: 3":                 {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{Version: "3.1.0"}},
		"version: a fork's":          {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{Version: "main"}},
		"version: nothing is beside": {target: targetOf(0), dump: []PlannedBlock{planned(ulidA, 0)}, policy: Policy{Version: "2.38.0", Replace: true}},

		"raw head: into an empty one":   {head: &RawHead{Bytes: 5}, raw: true},
		"raw head: a server runs":       {edit: func(t *wire.Target) { t.Live = true }, head: &RawHead{}, refused: []RefusalKind{RawHeadKept}},
		"raw head: beside a block":      {target: targetOf(0), head: &RawHead{}, refused: []RefusalKind{RawHeadKept}},
		"raw head: beside another":      {edit: func(t *wire.Target) { t.HeadBytes = 1 }, head: &RawHead{}, refused: []RefusalKind{RawHeadKept}},
		"raw head: replaces":            {target: targetOf(0), head: &RawHead{}, policy: Policy{Replace: true}, raw: true},
		"raw head: no server starts":    {head: &RawHead{Damage: fatal}, refused: []RefusalKind{RawHeadKept}},
		"raw head: a server repairs it": {head: &RawHead{Damage: torn}, raw: true, notes: "the server repairs it"},

		"server: replaced under it": {edit: func(t *wire.Target) { t.Live = true }, policy: Policy{Replace: true}, refused: []RefusalKind{ServerRuns}},
		"server: it is restarted":   {edit: func(t *wire.Target) { t.Live = true }, policy: Policy{Replace: true, Restarted: true}},

		"there: the same":  {target: targetOf(0), dump: []PlannedBlock{planned("01J00000000000000000000000", 0)}, skipped: 1},
		"there: compacted": {target: targetOf(0), dump: []PlannedBlock{{ULID: ulidA, origin: origin{ulid: ulidA, sources: []string{"01J00000000000000000000000"}}}}, skipped: 1},
		"there: one of two": {
			target: targetOf(0), dump: []PlannedBlock{planned("01J00000000000000000000000", 0), planned(ulidB, 0)}, skipped: 1,
		},
		"there: replaced": {target: targetOf(0), dump: []PlannedBlock{planned("01J00000000000000000000000", 0)}, policy: Policy{Replace: true}},
		"there: broken": {
			edit: func(t *wire.Target) { t.Blocks = []wire.TargetBlock{{ULID: ulidA}} }, dump: []PlannedBlock{planned(ulidA, 0)}, refused: []RefusalKind{BrokenBlock},
			notes: "has no meta.json that can be read",
		},
		"there: of another version": {
			edit: func(t *wire.Target) { t.Blocks = []wire.TargetBlock{{ULID: ulidA, Meta: []byte(`{"version":2}`)}} }, dump: []PlannedBlock{planned(ulidA, 0)},
			refused: []RefusalKind{BrokenBlock},
		},
		"two refusals": {
			target: targetOf(0), edit: func(t *wire.Target) { t.Thanos = true }, dump: []PlannedBlock{planned(ulidA, 15*day)}, policy: Policy{Retention: default15},
			refused: []RefusalKind{OutOfDefault, Uploads},
		},
	} {
		t.Run(name, func(t *testing.T) {
			target := c.target
			if target == nil {
				target = targetOf()
			}
			if c.edit != nil {
				c.edit(target)
			}
			got := Plan(target, Dump{Blocks: c.dump, Head: c.head, InPlace: c.inDir}, c.policy)
			if !slices.Equal(kinds(got.Refusals), c.refused) {
				t.Errorf("refused: %+v, want %v", got.Refusals, c.refused)
			}
			skipped := 0
			for _, b := range got.Blocks {
				if b.Action == Skip {
					skipped++
				}
			}
			if skipped != c.skipped || (got.Head == HeadRaw) != c.raw {
				t.Errorf("%d blocks are skipped, the head is %q", skipped, got.Head)
			}
			if c.notes != "" && !strings.Contains(strings.Join(got.Notes, "\n"), c.notes) {
				t.Errorf("notes: %q", got.Notes)
			}
			if c.policy.Replace != (len(got.Replaced) > 0) && len(target.Own) > 0 {
				t.Errorf("would take away %v", got.Replaced)
			}
			for _, b := range c.dump {
				if b.Action != "" {
					t.Error("the dump was changed")
				}
			}
		})
	}
}
