//go:build !unix

package agent

import (
	"errors"
	"os"
)

// errNotHere is of what an agent does just in containers.
var errNotHere = errors.New("agents work in containers, and these are of Linux")

func ownerOf(string) (uid, gid int, err error) { return 0, 0, errNotHere }

func statOf(os.FileInfo) (links uint64, uid, gid uint32, err error) { return 0, 0, 0, errNotHere }

func diskOf(string) (free, size int64, err error) { return 0, 0, errNotHere }

func writable(string) bool { return false }

func tryLock(*os.File) (locked bool, err error) { return false, errNotHere }

func cannotSync(error) bool { return true }
