package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"kohakuriver/tunnel-client/tunnel"
)

// maxTextBytes is the most of each text that goes before the frames.
const maxTextBytes = 1024

// errRefused: to try again at once is of no use.
var errRefused = errors.New("the runner refuses")

// keepConnected makes the tunnel anew for ever. It says a loss once, and not each attempt that follows.
func keepConnected(ctx context.Context, o options, say func(string)) {
	said := ""
	pause := o.firstPause
	for ctx.Err() == nil {
		err := serveOnce(ctx, o, func() {
			said = ""
			pause = o.firstPause
			say("connected")
		})
		if line := err.Error(); line != said {
			said = line
			say(line)
		}
		if errors.Is(err, errRefused) {
			pause = o.refusedPause
		}
		// Sandboxes of one node lose their runner together; they need not return together.
		sleep(ctx, pause*9/10+rand.N(pause/5+1))
		pause = o.pause
	}
}

func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// serveOnce holds one tunnel from its dialling to its loss, and always returns why it is over.
func serveOnce(ctx context.Context, o options, connected func()) error {
	told, err := readSettings(o.folder)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	socket, conn, err := dial(ctx, o, told)
	if err != nil {
		return err
	}
	defer socket.CloseNow()
	connected()
	return newLink(o, socket, conn).run(ctx)
}

// dial returns a WebSocket on which both ends have proven themselves, and the connection that carries it.
func dial(ctx context.Context, o options, told settings) (*websocket.Conn, *runnerConn, error) {
	ctx, cancel := context.WithTimeout(ctx, o.connectTimeout)
	defer cancel()
	var conn *runnerConn
	transport := &http.Transport{ // no proxy: the runner is on this node
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			leaveNothing(dialled)
			conn = &runnerConn{Conn: dialled, heard: newHearing()}
			return conn, nil
		},
		DisableCompression: true,
	}
	socket, response, err := websocket.Dial(ctx, told.url(), &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Subprotocols: []string{tunnel.Subprotocol},
	})
	if err != nil {
		if response != nil && response.StatusCode >= 400 && response.StatusCode < 500 {
			return nil, nil, fmt.Errorf("%w: HTTP %d", errRefused, response.StatusCode)
		}
		return nil, nil, fmt.Errorf("the runner is not reached: %w", err)
	}
	if socket.Subprotocol() != tunnel.Subprotocol {
		socket.CloseNow()
		return nil, nil, fmt.Errorf("%w: it does not speak %s", errRefused, tunnel.Subprotocol)
	}
	if err := prove(ctx, socket, told); err != nil {
		socket.CloseNow()
		return nil, nil, err
	}
	socket.SetReadLimit(tunnel.MaxFrameBytes)
	return socket, conn, nil
}

// leaveNothing has a connection gone at its end, also at that of this process. In TIME_WAIT it would be nobody's, and the
// runner would take it for one that a workload left behind.
func leaveNothing(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

func prove(ctx context.Context, socket *websocket.Conn, told settings) error {
	socket.SetReadLimit(maxTextBytes)
	var challenge tunnel.Challenge
	if err := readText(ctx, socket, &challenge); err != nil {
		return err
	}
	if !tunnel.IsNonce(challenge.Nonce) {
		return fmt.Errorf("%w: its challenge is none", errRefused)
	}
	nonce := tunnel.NewNonce()
	answer, err := json.Marshal(tunnel.Answer{
		Nonce: nonce,
		Proof: tunnel.Proof(told.secret, tunnel.Client, told.name, challenge.Nonce, nonce),
	})
	if err != nil {
		return err
	}
	if err := socket.Write(ctx, websocket.MessageText, answer); err != nil {
		return fmt.Errorf("the runner went: %w", err)
	}
	var confirmation tunnel.Confirmation
	if err := readText(ctx, socket, &confirmation); err != nil {
		return err
	}
	if !tunnel.IsProof(confirmation.Proof, tunnel.Proof(told.secret, tunnel.Runner, told.name, challenge.Nonce, nonce)) {
		return fmt.Errorf("%w: it does not know this sandbox's secret", errRefused)
	}
	return nil
}

func readText(ctx context.Context, socket *websocket.Conn, into any) error {
	kind, text, err := socket.Read(ctx)
	if websocket.CloseStatus(err) == websocket.StatusPolicyViolation {
		return fmt.Errorf("%w: it does not take the proof", errRefused)
	}
	if err != nil {
		return fmt.Errorf("the runner went: %w", err)
	}
	if kind != websocket.MessageText || json.Unmarshal(text, into) != nil {
		return fmt.Errorf("%w: what it says is no challenge", errRefused)
	}
	return nil
}
