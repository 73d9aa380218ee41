package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodSecret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func write(t *testing.T, text string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, settingsFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestSettingsAreRead(t *testing.T) {
	for address, url := range map[string]string{
		"172.30.0.1": "ws://172.30.0.1:8001/ws/tunnel/kohakuriver-sandbox-7",
		"fd00::1":    "ws://[fd00::1]:8001/ws/tunnel/kohakuriver-sandbox-7",
	} {
		text := `{"address":"` + address + `","port":8001,"name":"kohakuriver-sandbox-7","secret":"` + goodSecret + `","later":1}`
		found, err := readSettings(write(t, text))
		if err != nil || found.url() != url || len(found.secret) != 32 || found.secret[31] != 31 {
			t.Errorf("%v, %v", found, err)
		}
	}
}

func TestWhatAreNoSettingsIsRefusedWithoutTellingTheSecret(t *testing.T) {
	good := `{"address":"172.30.0.1","port":8001,"name":"a","secret":"` + goodSecret + `"}`
	for name, text := range map[string]string{
		"nothing":            "",
		"no object":          "[]",
		"a host name":        strings.Replace(good, "172.30.0.1", "runner", 1),
		"port 0":             strings.Replace(good, "8001", "0", 1),
		"no port":            strings.Replace(good, "8001", "80001", 1),
		"a path as name":     strings.Replace(good, `"a"`, `"a/../b"`, 1),
		"no name":            strings.Replace(good, `"a"`, `""`, 1),
		"a name too long":    strings.Replace(good, `"a"`, `"`+strings.Repeat("a", 129)+`"`, 1),
		"a short secret":     strings.Replace(good, "1f", "", 1),
		"a secret not hex":   strings.Replace(good, "1f", "xx", 1),
		"more than it holds": strings.Repeat(" ", maxSettingsBytes) + good,
	} {
		if _, err := readSettings(write(t, text)); err == nil || strings.Contains(err.Error(), goodSecret[:20]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := readSettings(t.TempDir()); err == nil {
		t.Error("an empty folder holds settings")
	}
}
