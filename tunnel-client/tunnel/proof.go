package tunnel

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

type Prover string

const (
	Client Prover = "client"
	Runner Prover = "runner"
)

const nonceDigits = 64

// Challenge, Answer and Confirmation are the three texts that go before the frames; wire/tunnel/proof.py says why.
type Challenge struct {
	Nonce string `json:"nonce"`
}

type Answer struct {
	Nonce string `json:"nonce"`
	Proof string `json:"proof"`
}

type Confirmation struct {
	Proof string `json:"proof"`
}

func NewNonce() string {
	var nonce [nonceDigits / 2]byte
	rand.Read(nonce[:]) // it never fails
	return hex.EncodeToString(nonce[:])
}

func IsNonce(text string) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) == nonceDigits && strings.ToLower(text) == text
}

func Proof(secret []byte, prover Prover, name, runnerNonce, clientNonce string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(strings.Join([]string{"kohakuriver tunnel v2 " + string(prover), name, runnerNonce, clientNonce}, "\n")))
	return hex.EncodeToString(mac.Sum(nil))
}

func IsProof(claimed, true string) bool {
	return hmac.Equal([]byte(claimed), []byte(true))
}
