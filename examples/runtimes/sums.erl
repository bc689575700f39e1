%% SPDX-License-Identifier: Apache-2.0
%% The server of README.md, in Erlang with a process for each client: erl -noshell -s sums main PORT
-module(sums).
-export([main/1]).

-define(SIZE, 256).

main([Port]) ->
    Keeper = spawn(fun() -> keep(array:new(?SIZE, {default, 0}), 0, 0, [], []) end),
    {ok, _} = timer:send_interval(500, Keeper, tick),
    Options = [binary, {packet, line}, {active, false}, {reuseaddr, true}],
    {ok, Server} = gen_tcp:listen(list_to_integer(atom_to_list(Port)), Options),
    accept(Server, Keeper).

accept(Server, Keeper) ->
    {ok, Client} = gen_tcp:accept(Server),
    Reader = spawn(fun() -> receive go -> read(Client, Keeper) end end),
    ok = gen_tcp:controlling_process(Client, Reader),
    Keeper ! {enter, Client},
    Reader ! go,
    accept(Server, Keeper).

read(Client, Keeper) ->
    case gen_tcp:recv(Client, 0) of
        {ok, <<"add ", Rest/binary>>} ->
            Keeper ! {add, Client, binary_to_integer(string:trim(Rest))},
            read(Client, Keeper);
        _ ->
            Keeper ! {leave, Client},
            gen_tcp:close(Client)
    end.

keep(Table, Additions, Ticks, Clients, Kept) ->
    receive
        {enter, Client} ->
            keep(Table, Additions, Ticks, [Client | Clients], Kept);
        {leave, Client} ->
            keep(Table, Additions, Ticks, lists:delete(Client, Clients), Kept);
        {add, Client, Number} ->
            Place = Number rem ?SIZE,
            Next = array:set(Place, array:get(Place, Table) + Number, Table),
            say(Client, "sum ~b ~b ~b~n", [Number, Additions + 1, sum(Next)]),
            keep(Next, Additions + 1, Ticks, Clients, Kept);
        tick ->
            Made = [integer_to_list(Ticks * I + array:get(I rem ?SIZE, Table)) || I <- lists:seq(1, 500)],
            [say(Client, "tick ~b ~b ~b~n", [Ticks + 1, sum(Table), length(Made)]) || Client <- Clients],
            keep(Table, Additions, Ticks + 1, Clients, Made)
    end.

sum(Table) ->
    array:foldl(fun(I, Value, Total) -> (Total + Value * (I + 1)) rem 1000003 end, 0, Table).

say(Client, Format, Values) ->
    gen_tcp:send(Client, io_lib:format(Format, Values)).
