package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	goodRunner = `{"address":"172.30.0.1","port":8001,"name":"kohakuriver-sandbox-7","later":1}`
	goodSecret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)

func folderOf(t *testing.T, runner, secret string) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{runnerFile: runner, secretFile: secret} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestSettingsAreRead(t *testing.T) {
	for address, url := range map[string]string{
		"172.30.0.1": "ws://172.30.0.1:8001/ws/tunnel/kohakuriver-sandbox-7",
		"fd00::1":    "ws://[fd00::1]:8001/ws/tunnel/kohakuriver-sandbox-7",
	} {
		runner := strings.Replace(goodRunner, "172.30.0.1", address, 1)
		found, err := readSettings(folderOf(t, runner, goodSecret+"\n"))
		if err != nil || found.url() != url || len(found.secret) != 32 || found.secret[31] != 31 {
			t.Errorf("%v, %v", found, err)
		}
	}
}

func TestWhatAreNoSettingsIsRefusedWithoutSayingTheSecret(t *testing.T) {
	for name, replaced := range map[string][2]string{
		"nothing":         {goodRunner, ""},
		"no object":       {goodRunner, "[]"},
		"a host name":     {"172.30.0.1", "runner"},
		"port 0":          {"8001", "0"},
		"no port":         {"8001", "80001"},
		"a path as name":  {"kohakuriver-sandbox-7", "a/../b"},
		"no name":         {"kohakuriver-sandbox-7", ""},
		"a name too long": {"kohakuriver-sandbox-7", strings.Repeat("a", 129)},
		"too much":        {goodRunner, strings.Repeat(" ", maxFileBytes) + goodRunner},
	} {
		if _, err := readSettings(folderOf(t, strings.Replace(goodRunner, replaced[0], replaced[1], 1), goodSecret)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, secret := range []string{"", goodSecret[2:], goodSecret + "20", "x" + goodSecret[1:]} {
		_, err := readSettings(folderOf(t, goodRunner, secret))
		if err == nil || (secret != "" && strings.Contains(err.Error(), secret)) {
			t.Errorf("of the secret %q: %v", secret, err)
		}
	}
	for _, name := range []string{runnerFile, secretFile} {
		folder := folderOf(t, goodRunner, goodSecret)
		os.Remove(filepath.Join(folder, name))
		if _, err := readSettings(folder); err == nil {
			t.Errorf("without %s", name)
		}
	}
}
