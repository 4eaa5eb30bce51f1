// Greets; with an argument it then sleeps.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	fmt.Println("hello, world")
	if len(os.Args) > 1 {
		time.Sleep(time.Minute)
	}
}
