// SPDX-License-Identifier: Apache-2.0

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;

/** The server of README.md, in Java with a virtual thread for each client: java -cp DIRECTORY Sums PORT */
public final class Sums {
  private static final int SIZE = 256;

  private final long[] table = new long[SIZE];
  private final Set<OutputStream> clients = new HashSet<>();
  private final ReentrantLock lock = new ReentrantLock();
  private long additions;
  private long ticks;
  private List<String> kept = List.of();

  public static void main(String[] arguments) throws IOException {
    new Sums().run(Integer.parseInt(arguments[0]));
  }

  private void run(int port) throws IOException {
    Executors.newSingleThreadScheduledExecutor().scheduleAtFixedRate(this::tick, 500, 500, TimeUnit.MILLISECONDS);
    try (var server = new ServerSocket(port); var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      while (true) {
        Socket socket = server.accept();
        threads.execute(() -> serve(socket));
      }
    }
  }

  private void serve(Socket socket) {
    OutputStream out = null;
    try (socket) {
      var in = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.US_ASCII));
      out = socket.getOutputStream();
      enter(out);
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        add(out, Long.parseLong(line.split(" ")[1]));
      }
    } catch (IOException error) {
      System.err.println(error);
    } finally {
      leave(out);
    }
  }

  private void enter(OutputStream out) {
    lock.lock();
    try {
      clients.add(out);
    } finally {
      lock.unlock();
    }
  }

  private void leave(OutputStream out) {
    lock.lock();
    try {
      clients.remove(out);
    } finally {
      lock.unlock();
    }
  }

  private void add(OutputStream out, long number) throws IOException {
    lock.lock();
    try {
      table[(int) (number % SIZE)] += number;
      additions++;
      say(out, "sum " + number + " " + additions + " " + sum());
    } finally {
      lock.unlock();
    }
  }

  private void tick() {
    lock.lock();
    try {
      var made = new ArrayList<String>();
      for (int i = 0; i < 500; i++) made.add(ticks + " " + i + " " + table[i % SIZE]);
      kept = made;
      ticks++;
      for (OutputStream out : clients) say(out, "tick " + ticks + " " + sum() + " " + kept.size());
    } catch (IOException error) {
      System.err.println(error);
    } finally {
      lock.unlock();
    }
  }

  private long sum() {
    long sum = 0;
    for (int i = 0; i < SIZE; i++) sum = (sum + table[i] * (i + 1)) % 1_000_003;
    return sum;
  }

  private static void say(OutputStream out, String line) throws IOException {
    out.write((line + "\n").getBytes(StandardCharsets.US_ASCII));
  }
}
