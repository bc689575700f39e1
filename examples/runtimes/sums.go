// SPDX-License-Identifier: Apache-2.0

// The server of README.md, in Go with a goroutine for each client: sums PORT
package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"time"
)

const size = 256

var (
	lock      sync.Mutex
	table     [size]int64
	clients   = map[net.Conn]bool{}
	additions int64
	kept      []string
)

func sum() int64 {
	total := int64(0)
	for i, value := range table {
		total = (total + value*int64(i+1)) % 1_000_003
	}
	return total
}

func add(client net.Conn, number int64) {
	lock.Lock()
	defer lock.Unlock()
	table[number%size] += number
	additions++
	fmt.Fprintf(client, "sum %d %d %d\n", number, additions, sum())
}

func serve(client net.Conn) {
	lock.Lock()
	clients[client] = true
	lock.Unlock()
	lines := bufio.NewScanner(client)
	for lines.Scan() {
		var number int64
		if _, err := fmt.Sscanf(lines.Text(), "add %d", &number); err != nil {
			log.Print(err)
			break
		}
		add(client, number)
	}
	lock.Lock()
	delete(clients, client)
	lock.Unlock()
	client.Close()
}

func tick(ticks int) {
	lock.Lock()
	defer lock.Unlock()
	kept = nil
	for i := 0; i < 500; i++ {
		kept = append(kept, fmt.Sprintf("%d %d %d", ticks, i, table[i%size]))
	}
	for client := range clients {
		fmt.Fprintf(client, "tick %d %d %d\n", ticks, sum(), len(kept))
	}
}

func main() {
	server, err := net.Listen("tcp", ":"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		ticker := time.NewTicker(500 * time.Millisecond)
		for ticks := 1; ; ticks++ {
			<-ticker.C
			tick(ticks)
		}
	}()
	for {
		client, err := server.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(client)
	}
}
