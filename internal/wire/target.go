package wire

import "encoding/json"

// Target is the inventory of a data dir that something may be restored into.
type Target struct {
	Dir       string        `json:"dir"`
	Exists    bool          `json:"exists"` // false: it can be made, its parent exists
	Live      bool          `json:"live"`   // a server has its lock, or writes into it
	Blocks    []TargetBlock `json:"blocks"`
	HeadBytes int64         `json:"headBytes"`
	HeadTime  int64         `json:"headTime"` // Unix milliseconds, about that of the newest sample; 0: no head
	Free      int64         `json:"free"`     // bytes that the agent's user may still write; -1: not known
	Size      int64         `json:"size"`     // bytes of the filesystem; -1: not known
	UID       int           `json:"uid"`      // owner of the directory; -1: not known
	AgentUID  int           `json:"agentUID"`
	Writable  bool          `json:"writable"` // by the agent
	Thanos    bool          `json:"thanos"`   // a Thanos sidecar ships its blocks

	Own   []string `json:"own,omitempty"`   // names in it that are the TSDB's, which a replacement takes away
	Aside []Aside  `json:"aside,omitempty"` // what earlier replacements took away and did not remove

	// Foreign are names in a directory that has nothing of a Prometheus. It is no data
	// dir, unless there are none.
	Foreign []string `json:"foreign,omitempty"`

	// Servers is the number of servers at work in it that the agent sees, and can keep
	// from opening files.
	Servers int `json:"servers"`
}

// Empty reports whether the data dir has neither blocks nor a head.
func (t *Target) Empty() bool { return len(t.Blocks) == 0 && t.HeadBytes == 0 }

// Aside is a directory with what a replacement took away.
type Aside struct {
	Dir  string `json:"dir"`  // its name in the data dir
	Done bool   `json:"done"` // all that was to come is in place
}

// TargetBlock is a block of a target. Meta is its meta.json as it stands there,
// empty if there is none.
type TargetBlock struct {
	ULID string          `json:"ulid"`
	Meta json.RawMessage `json:"meta,omitempty"`
}

// Ready says that the files may come now, or that all was done before: then none
// need to.
type Ready struct {
	Done *Restored `json:"done,omitempty"`
}

// Restored says what became of the files that came.
type Restored struct {
	Added   []string `json:"added"`   // ULIDs of blocks that are in the data dir now
	Skipped []string `json:"skipped"` // that were there already

	// Of a replacement: names that were taken away, the directory in the data dir
	// that they are in, and how many servers were kept from opening files since. Those
	// are of no use any more: they still have the old files open.
	Replaced []string `json:"replaced,omitempty"`
	Aside    string   `json:"aside,omitempty"`
	Held     int      `json:"held,omitempty"`
}

// Discarded says that what was taken away is gone, also if it was before.
type Discarded struct {
	Dir string `json:"dir,omitempty"` // its name; empty: it was not there
}
