// Tunnel-client is what carries connections into a sandbox: it dials its runner, and for each stream that the runner
// opens a port of 127.0.0.1 in its own network namespace. It listens on nothing, and reads two files.
//
//	tunnel-client [options] FOLDER    FOLDER holds runner.json (address, port, name) and secret
//	tunnel-client --version           one line of JSON: version, protocol, architecture
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"kohakuriver/tunnel-client/tunnel"
)

// version is set when the program is built.
var version = "unknown"

// architectures by the names that the kernel gives them.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// A sandbox's limit of processes counts threads. Go's own default is one for each core.
const (
	processors  = 1
	maxThreads  = 24
	memoryBytes = 48 << 20
)

type options struct {
	folder            string
	pingAfter         time.Duration
	endAfter          time.Duration
	flowIdle          time.Duration
	dialTimeout       time.Duration
	refusedPause      time.Duration
	firstPause, pause time.Duration
	connectTimeout    time.Duration
	streams           int
}

func main() {
	o := options{
		firstPause: 100 * time.Millisecond, pause: 500 * time.Millisecond, refusedPause: 2 * time.Second,
		connectTimeout: 5 * time.Second, dialTimeout: 10 * time.Second, streams: 4096,
	}
	showVersion := flag.Bool("version", false, "print version, protocol and architecture as JSON")
	flag.DurationVar(&o.pingAfter, "ping-after", 20*time.Second, "of silence, PING is sent")
	flag.DurationVar(&o.endAfter, "end-after", time.Minute, "of silence, the tunnel is made anew")
	flag.DurationVar(&o.flowIdle, "flow-idle", time.Minute, "without a datagram, a flow ends")
	flag.Parse()
	if *showVersion {
		line, _ := json.Marshal(map[string]string{
			"version": version, "protocol": tunnel.Subprotocol, "architecture": architectures[runtime.GOARCH],
		})
		fmt.Println(string(line))
		return
	}
	if flag.NArg() != 1 || o.pingAfter <= 0 || o.endAfter <= 0 || o.flowIdle <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	o.folder = flag.Arg(0)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBytes)
	}
	debug.SetMaxThreads(maxThreads)
	keepConnected(context.Background(), o, func(line string) { fmt.Fprintln(os.Stderr, "tunnel-client: "+line) })
}
