// Package apply changes a data directory: it stages blocks and a head in it, brings
// them to the disk, and gives them their names. It is the part of a restore that runs
// where the data directory is: in the agent for one in a container, in promdump itself
// for one on this machine. It links what the agent links, and so not the TSDB: blocks
// are verified before they come here.
//
// A restore is one [Session]. Everything is staged in one directory whose name
// Prometheus ignores, and removes when it starts:
//
//	<ID>.tmp-for-creation/
//	    promdump    a file that the session holds a lock on
//	    ready/      blocks and directories of a head: complete, synced, with their owner
//
// [Session.Publish] puts what is staged beside what the data directory holds, block by
// block, or in the place of all that it holds. No rename moves more than one name, so a
// replacement keeps a journal:
//
//	promdump-replaced-<ID>/    the old contents; Prometheus leaves them alone
//	    promdump.json          how far the replacement is
//
// Whatever kills it, the next session undoes what was not done: the data directory holds
// all of the old or all of the new. A server that runs meanwhile keeps the old files open
// and would go on by their names: its next WAL segment, checkpoint or snapshot would land
// among the new ones. So a session either holds the server's lock while it renames
// (Options.Offline), or keeps servers from opening files, see freeze.
//
// What is not promised: that the lock of a data directory means something on a network
// filesystem; and that servers of other users or in other PID namespaces are seen.
package apply
