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
)

const (
	settingsFile     = "tunnel.json"
	maxSettingsBytes = 4096
	secretBytes      = 32
	nameMaxLength    = 128
)

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// settings are where the runner is to be found, and what the client proves to it.
type settings struct {
	address netip.AddrPort
	name    string
	secret  []byte
}

// readSettings reads the folder that only the sandbox sees. It is read anew at each connect: the runner may have moved.
func readSettings(folder string) (settings, error) {
	file, err := os.Open(filepath.Join(folder, settingsFile))
	if err != nil {
		return settings{}, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSettingsBytes))
	if err != nil {
		return settings{}, err
	}
	var told struct {
		Address string `json:"address"`
		Port    uint16 `json:"port"`
		Name    string `json:"name"`
		Secret  string `json:"secret"`
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return settings{}, fmt.Errorf("%s is no JSON of the expected kind", settingsFile)
	}
	address, err := netip.ParseAddr(told.Address)
	if err != nil || told.Port == 0 {
		return settings{}, fmt.Errorf("%s names no address and port", settingsFile)
	}
	if len(told.Name) > nameMaxLength || !plainName.MatchString(told.Name) {
		return settings{}, fmt.Errorf("%s names no sandbox", settingsFile)
	}
	secret, err := hex.DecodeString(told.Secret)
	if err != nil || len(secret) != secretBytes {
		return settings{}, errors.New(settingsFile + " holds no secret of 32 bytes") // and never what it holds
	}
	return settings{netip.AddrPortFrom(address, told.Port), told.Name, secret}, nil
}

func (d settings) url() string { return "ws://" + d.address.String() + "/ws/tunnel/" + d.name }
