package wire

import "encoding/json"

// Target is a data dir that something may be restored into.
type Target struct {
	Dir       string        `json:"dir"`
	Blocks    []TargetBlock `json:"blocks"`
	HeadBytes int64         `json:"headBytes"`
	HeadTime  int64         `json:"headTime"` // Unix milliseconds, about that of the newest sample; 0: no head
	Free      int64         `json:"free"`     // bytes that the agent's user may still write
	Size      int64         `json:"size"`     // bytes of the filesystem
	UID       int           `json:"uid"`      // whose the directory is
	AgentUID  int           `json:"agentUID"`
	Writable  bool          `json:"writable"` // by the agent
	Thanos    bool          `json:"thanos"`   // a Thanos sidecar ships its blocks
}

// TargetBlock is a block of a target. Meta is its meta.json as it stands there,
// empty if there is none.
type TargetBlock struct {
	ULID string          `json:"ulid"`
	Meta json.RawMessage `json:"meta,omitempty"`
}

// Ready says that the files may come now.
type Ready struct{}

// Restored says what became of the files that came.
type Restored struct {
	Added   []string `json:"added"`   // ULIDs of blocks that are in the data dir now
	Skipped []string `json:"skipped"` // that were there already
}
