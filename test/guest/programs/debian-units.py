# Puts data into services as Debian ships them, and looks at it.
# debian-units.py fill UNIT; debian-units.py look UNIT: prints what is there, as JSON.
import hashlib
import json
import socket
import subprocess
import sys
import urllib.request

ITEMS = 500


def memcached(*lines):
    """Sends lines to memcached; returns the lines of all answers."""
    with socket.create_connection(("127.0.0.1", 11211)) as connection:
        connection.sendall("".join(line + "\r\n" for line in lines).encode() + b"quit\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer.decode().split("\r\n")[:-1]


def sql(*statements):
    command = ["mariadb", "--batch", "--skip-column-names", "--execute", "; ".join(statements)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def fetch(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def fill_memcached():
    lines = []
    for i in range(ITEMS):
        value = hashlib.sha256(str(i).encode()).hexdigest() * (1 + i % 40)
        lines += [f"set key{i} {i} 0 {len(value)}", value]
    # One that ends long after the test, and a counter.
    lines += ["set lasting 0 86400 2", "ok", "set counter 0 0 1", "0", "incr counter 41"]
    memcached(*lines)


def look_memcached():
    # With the number that each change of an item gets.
    items = memcached(*(f"gets {key}" for key in [f"key{i}" for i in range(ITEMS)] + ["lasting", "counter"]))
    stats = dict(line.split(" ", 2)[1:] for line in memcached("stats") if line.startswith("STAT "))
    names = ("pid", "curr_items", "total_items", "cmd_set", "bytes", "evictions", "threads")
    return {"items": hashlib.sha256("\n".join(items).encode()).hexdigest(), "lines": len(items)} | {
        name: stats[name] for name in names
    }


def fill_apache2():
    with open("/var/www/html/page", "w") as page:
        page.write("a page of apache2\n")
    for _ in range(20):
        fetch("http://127.0.0.1/page")


def apache2_status():
    lines = fetch("http://127.0.0.1/server-status?auto").splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def look_apache2():
    page = fetch("http://127.0.0.1/page")
    status = apache2_status()
    asked_again = 0
    # A request is counted after its answer was sent, while its worker is still busy. The only other one answers this.
    while status["BusyWorkers"] != "1":
        status = apache2_status()
        asked_again += 1
    # Kept in memory that its processes share. This last question is the one that it does not count yet.
    return {
        "page": page,
        "accesses": int(status["Total Accesses"]),
        "askedAgain": asked_again,
        "restarts": status["ParentServerConfigGeneration"],
    }


def fill_mariadb():
    values = ", ".join(f"({i}, SHA2('{i}', 256))" for i in range(ITEMS))
    sql(
        "CREATE DATABASE kept",
        "CREATE TABLE kept.in_memory (id INT PRIMARY KEY, value CHAR(64)) ENGINE=MEMORY",
        "CREATE TABLE kept.on_disk (id INT PRIMARY KEY, value CHAR(64)) ENGINE=InnoDB",
        f"INSERT INTO kept.in_memory VALUES {values}",
        f"INSERT INTO kept.on_disk VALUES {values}",
        # In no file.
        "SET GLOBAL max_connections = 177",
    )


def look_mariadb():
    return {
        table: sql(f"SELECT COUNT(*), SHA2(GROUP_CONCAT(value ORDER BY id), 256) FROM kept.{table}")
        for table in ("in_memory", "on_disk")
    } | {"setting": sql("SELECT @@GLOBAL.max_connections")}


def fill_nginx():
    with open("/var/www/html/page-of-nginx", "w") as page:
        page.write("a page of nginx\n")


def look_nginx():
    return {"page": fetch("http://127.0.0.1:8080/page-of-nginx")}


def redis(*commands):
    text = "".join(command + "\n" for command in commands)
    return subprocess.run(["redis-cli"], input=text, check=True, capture_output=True, text=True).stdout.split()


def fill_redis_server():
    redis(*(f"SET key{i} value{i}" for i in range(ITEMS)))


def look_redis_server():
    return {"size": redis("DBSIZE"), "one": redis("GET key17")}


act, unit = sys.argv[1:]
found = globals()[f"{act}_{unit.replace('-', '_')}"]()
if act == "look":
    print(json.dumps(found))
