package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/isochrone/isochrone/dataplane/client"
)

// Example posts an event, and tells apart what a program has to.
func Example() {
	c, err := client.New(client.Config{Service: "intake.example.net", Key: os.Getenv("ISOCHRONE_API_KEY")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	accepted, err := c.Post(ctx, client.Payload{Body: []byte(`{"hash":"0x1","sender":"0x2","amount":3}`), IdempotencyKey: "block-17-log-4"})
	var quota *client.QuotaError
	switch {
	case err == nil:
		fmt.Println("keep the receipt:", accepted.Receipt)
	case errors.As(err, &quota):
		fmt.Println("post it again after", quota.RetryAfter)
	case errors.Is(err, client.ErrUnavailable):
		fmt.Println("post it again, with the same key:", err)
	default: // ErrUnauthorized, ErrInvalid: it would be refused again
		fmt.Println("give up:", err)
	}
}
