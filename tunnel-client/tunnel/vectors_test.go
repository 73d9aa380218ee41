package tunnel

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const vectors = "../../tests/unit/wire/tunnel/vectors"

type scenario struct {
	Name   string
	Role   string
	Credit bool
	Bounds struct {
		Streams       *int
		Opening       *int
		GrowthBytes   *int `json:"growth_bytes"`
		FlowDatagrams *int `json:"flow_datagrams"`
		FlowBytes     *int `json:"flow_bytes"`
		DatagramBytes *int `json:"datagram_bytes"`
	}
	Steps []step
}

type step struct {
	Do        string
	Transport Transport
	Port      uint16
	Stream    *uint32
	Data      string
	Frame     string
	Sentence  string
	Amount    int
	Now       float64
	Pull      *int

	ID     *uint32
	Events [][]any
	Frames [][]any
	Breach string
	Open   int
	Room   int
}

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

var run = regexp.MustCompile(`\((..)\*(\d+)\)`)

func bytesOf(t testing.TB, text string) []byte {
	t.Helper()
	plain := run.ReplaceAllStringFunc(text, func(found string) string {
		parts := run.FindStringSubmatch(found)
		times, _ := strconv.Atoi(parts[2])
		return strings.Repeat(parts[1], times)
	})
	data, err := hex.DecodeString(plain)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func endOf(s scenario) *End {
	bounds := DefaultBounds()
	bounds.FrameBytes = 16 << 10 // with which the vectors were written
	for place, given := range map[*int]*int{
		&bounds.Streams: s.Bounds.Streams, &bounds.Opening: s.Bounds.Opening,
		&bounds.GrowthBytes: s.Bounds.GrowthBytes, &bounds.FlowDatagrams: s.Bounds.FlowDatagrams,
		&bounds.FlowBytes: s.Bounds.FlowBytes, &bounds.DatagramBytes: s.Bounds.DatagramBytes,
	} {
		if given != nil {
			*place = *given
		}
	}
	role := Opens
	if s.Role == "IS_ASKED" {
		role = IsAsked
	}
	return NewEnd(role, s.Credit, bounds)
}

var eventNames = map[EventKind]string{
	StreamOpened: "Opened", StreamConnected: "Connected", StreamReceived: "Received", StreamRoomAgain: "RoomAgain",
	StreamFinished: "Finished", StreamEnded: "Ended", StreamReset: "Reset",
}

// told writes an event as the vectors do, with bytes as plain hex.
func told(event Event) []any {
	parts := []any{eventNames[event.Kind], float64(event.ID)}
	switch event.Kind {
	case StreamOpened:
		return append(parts, float64(event.Transport), float64(event.Port))
	case StreamReceived:
		return append(parts, hex.EncodeToString(event.Data))
	case StreamReset:
		return append(parts, event.Sentence)
	}
	return parts
}

func do(t *testing.T, end *End, s step) (events [][]any, err error) {
	switch s.Do {
	case "open":
		id, ok := end.Open(s.Transport, s.Port)
		if ok != (s.ID != nil) || (ok && id != *s.ID) {
			t.Errorf("opened %d, %v", id, ok)
		}
	case "connected":
		end.Connected(*s.Stream)
	case "send":
		end.Send(*s.Stream, bytesOf(t, s.Data))
	case "finish":
		end.Finish(*s.Stream)
	case "reset":
		end.Reset(*s.Stream, s.Sentence)
	case "take":
		end.Take(*s.Stream, s.Amount)
	case "ping":
		end.Ping()
	case "tick":
		for _, id := range end.Tick(time.Duration(s.Now * float64(time.Second))) {
			events = append(events, told(Event{Kind: StreamEnded, ID: id}))
		}
	case "receive":
		var event Event
		if event, err = end.Receive(bytesOf(t, s.Frame)); event.Kind != Nothing {
			events = append(events, told(event))
		}
	default:
		t.Fatalf("no step is called %s", s.Do)
	}
	return events, err
}

func expected(t *testing.T, s step) (events [][]any) {
	for _, event := range s.Events {
		if event[0] == "Received" {
			event[2] = hex.EncodeToString(bytesOf(t, event[2].(string)))
		}
		events = append(events, event)
	}
	return events
}

func play(t *testing.T, s scenario) {
	end := endOf(s)
	for number, step := range s.Steps {
		where := fmt.Sprintf("step %d (%s)", number, step.Do)
		events, err := do(t, end, step)
		if err != nil || step.Breach != "" {
			if err == nil || err.Error() != step.Breach {
				t.Fatalf("%s: breach %v, recorded %q", where, err, step.Breach)
			}
			return
		}
		if want := expected(t, step); !reflect.DeepEqual(events, want) {
			t.Fatalf("%s: events %v, recorded %v", where, events, want)
		}
		for place := 0; step.Pull == nil || place < *step.Pull; place++ {
			id, frame, ok := end.NextFrame(nil)
			if !ok {
				if place != len(step.Frames) {
					t.Fatalf("%s: %d frames, recorded %d", where, place, len(step.Frames))
				}
				break
			}
			if place >= len(step.Frames) || float64(id) != step.Frames[place][0] ||
				hex.EncodeToString(frame) != hex.EncodeToString(bytesOf(t, step.Frames[place][1].(string))) {
				t.Fatalf("%s: frame %d of stream %d: %.40x", where, place, id, frame)
			}
		}
		if end.Len() != step.Open || (step.Stream != nil && end.Room(*step.Stream) != step.Room) {
			t.Fatalf("%s: %d streams, recorded %d", where, end.Len(), step.Open)
		}
	}
}

func TestAnEndDoesAsRecorded(t *testing.T) {
	for _, name := range []string{"ends.json", "walks.json"} {
		var scenarios []scenario
		readVectors(t, name, &scenarios)
		if len(scenarios) == 0 {
			t.Fatalf("%s is empty", name)
		}
		for _, s := range scenarios {
			t.Run(s.Name, func(t *testing.T) { play(t, s) })
		}
	}
}

func TestProofsAreThoseRecorded(t *testing.T) {
	var recorded []struct{ Prover, Secret, Name, Runner, Client, Proof string }
	readVectors(t, "proofs.json", &recorded)
	for _, v := range recorded {
		true := Proof(bytesOf(t, v.Secret), Prover(v.Prover), v.Name, v.Runner, v.Client)
		if !IsProof(v.Proof, true) || IsProof(v.Proof, strings.ToUpper(true)) {
			t.Errorf("of the %s: %s", v.Prover, true)
		}
	}
	if len(recorded) != 2 {
		t.Errorf("%d proofs are recorded", len(recorded))
	}
}

func TestANonceIsNewEachTime(t *testing.T) {
	if one, other := NewNonce(), NewNonce(); one == other || !IsNonce(one) {
		t.Errorf("%s, %s", one, other)
	}
	for _, text := range []string{"", "ab", strings.Repeat("A", 64), strings.Repeat("g", 64)} {
		if IsNonce(text) {
			t.Errorf("%q is taken for a nonce", text)
		}
	}
}

func TestADayPassesInAMoment(t *testing.T) {
	life := Life{PingAfter: 20 * time.Second, EndAfter: time.Minute}
	pings := 0
	for now := time.Duration(0); now < 24*time.Hour; now += time.Second {
		switch life.Due(now) {
		case PingDue:
			pings++
			life.Heard(now + time.Second/2)
		case EndDue:
			t.Fatalf("the end is due at %v", now)
		}
	}
	if pings < 4000 {
		t.Errorf("%d pings in a day", pings)
	}
	life = Life{PingAfter: 20 * time.Second, EndAfter: time.Minute}
	dues := []Due{life.Due(19 * time.Second), life.Due(20 * time.Second), life.Due(39 * time.Second), life.Due(45 * time.Second), life.Due(60 * time.Second)}
	if !reflect.DeepEqual(dues, []Due{NothingDue, PingDue, NothingDue, PingDue, EndDue}) {
		t.Errorf("due: %v", dues)
	}
	if life.WakesAt() != 60*time.Second {
		t.Errorf("asked again at %v", life.WakesAt())
	}
}
