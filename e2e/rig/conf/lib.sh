# Sourced by all scripts: where everything is, and how a program is started and
# stopped. Nothing is written into the checkout.
K8S=v1.37.2
CONF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RIG=$(dirname "$CONF")
DIR=${PROMDUMP_E2E_RIG:-${XDG_CACHE_HOME:-$HOME/.cache}/promdump-e2e/rig}
BIN=$DIR/bin # built
DEB=$DIR/deb # taken out of Debian's packages
ST=$DIR/state
PKI=$ST/pki
SOCKET=$ST/run/containerd.sock

# A pid alone may be somebody else's by now: the file also has the time of start.
alive() {
  local pid since
  [ -f "$ST/pids/$1" ] && read -r pid since < "$ST/pids/$1" && [ "$(born "$pid")" = "$since" ]
}

# born is empty for a zombie: killed programs stay that for seconds here.
born() { awk '$3 != "Z" {print $22}' "/proc/$1/stat" 2> /dev/null || true; }

# start NAME COMMAND…: in the background, with a log, unless it runs. 9 is the
# lock of up.sh, which must not outlive it.
start() {
  local name=$1 pid
  shift
  if alive "$name"; then return; fi
  setsid nohup "$@" >> "$ST/logs/$name.log" 2>&1 < /dev/null 9>&- &
  pid=$!
  echo "$pid $(born $pid)" > "$ST/pids/$name"
}

# stop NAME [SIGNAL]: after 10 s by SIGKILL.
stop() {
  local pid since
  if alive "$1"; then
    read -r pid since < "$ST/pids/$1"
    kill "-${2:-TERM}" "$pid"
    for _ in $(seq 100); do
      alive "$1" || break
      sleep 0.1
    done
    if alive "$1"; then kill -KILL "$pid"; fi
  fi
  rm -f "$ST/pids/$1"
}

# await SECONDS NAME COMMAND…: until the command succeeds, or NAME is dead.
await() {
  local end=$((SECONDS + $1)) name=$2
  shift 2
  until "$@" > /dev/null 2>&1; do
    if [ $SECONDS -ge $end ] || ! alive "$name"; then
      echo "up.sh: $name is not ready; its log, $ST/logs/$name.log, ends with" >&2
      tail -n 8 "$ST/logs/$name.log" >&2
      exit 1
    fi
    sleep 0.1
  done
}
