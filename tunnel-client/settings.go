package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	runnerFile    = "runner.json"
	secretFile    = "secret"
	maxFileBytes  = 4096
	secretBytes   = 32
	nameMaxLength = 128
)

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// settings are where the runner is to be found, and what the client proves to it.
type settings struct {
	address netip.AddrPort
	name    string
	secret  []byte
}

// readSettings reads the folder that only the sandbox sees, anew at each connect: the runner may have moved.
func readSettings(folder string) (settings, error) {
	text, err := readFile(folder, runnerFile)
	if err != nil {
		return settings{}, err
	}
	var told struct {
		Address string `json:"address"`
		Port    uint16 `json:"port"`
		Name    string `json:"name"`
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return settings{}, fmt.Errorf("%s is no JSON of the expected kind", runnerFile)
	}
	address, err := netip.ParseAddr(told.Address)
	if err != nil || told.Port == 0 {
		return settings{}, fmt.Errorf("%s names no address and port", runnerFile)
	}
	if len(told.Name) > nameMaxLength || !plainName.MatchString(told.Name) {
		return settings{}, fmt.Errorf("%s names no sandbox", runnerFile)
	}
	text, err = readFile(folder, secretFile)
	if err != nil {
		return settings{}, err
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) != secretBytes {
		return settings{}, errors.New("the secret has not 32 bytes in hex") // and never what it is
	}
	return settings{netip.AddrPortFrom(address, told.Port), told.Name, secret}, nil
}

func readFile(folder, name string) ([]byte, error) {
	file, err := os.Open(filepath.Join(folder, name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxFileBytes))
}

func (s settings) url() string { return "ws://" + s.address.String() + "/ws/tunnel/" + s.name }
