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
	doorFile      = "tunnel.json"
	maxDoorBytes  = 4096
	secretBytes   = 32
	nameMaxLength = 128
)

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// door is where the runner is to be found, and what the client proves to it.
type door struct {
	address netip.AddrPort
	name    string
	secret  []byte
}

// readDoor reads the folder that only the sandbox sees. It is read anew at each connect: the runner may have moved.
func readDoor(folder string) (door, error) {
	file, err := os.Open(filepath.Join(folder, doorFile))
	if err != nil {
		return door{}, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxDoorBytes))
	if err != nil {
		return door{}, err
	}
	var told struct {
		Address string `json:"address"`
		Port    uint16 `json:"port"`
		Name    string `json:"name"`
		Secret  string `json:"secret"`
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return door{}, fmt.Errorf("%s is no JSON of the expected kind", doorFile)
	}
	address, err := netip.ParseAddr(told.Address)
	if err != nil || told.Port == 0 {
		return door{}, fmt.Errorf("%s names no address and port", doorFile)
	}
	if len(told.Name) > nameMaxLength || !plainName.MatchString(told.Name) {
		return door{}, fmt.Errorf("%s names no sandbox", doorFile)
	}
	secret, err := hex.DecodeString(told.Secret)
	if err != nil || len(secret) != secretBytes {
		return door{}, errors.New(doorFile + " holds no secret of 32 bytes") // and never what it holds
	}
	return door{netip.AddrPortFrom(address, told.Port), told.Name, secret}, nil
}

func (d door) url() string { return "ws://" + d.address.String() + "/ws/tunnel/" + d.name }
