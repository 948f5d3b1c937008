# A worker that asks the web servers in turn, and crashes now and then as programs do.
use strict;
use warnings;
use IO::Socket::INET;

$| = 1;
my @ports = split ' ', $ENV{PORTS};
my $jobs = 1 + int rand 6;
$SIG{TERM} = sub { print "worker: asked to stop, bye\n"; exit 0 };
print "worker: started, restarts so far: $ENV{KEEPALIVE_RESTARTS}\n";

for my $job (1 .. $jobs) {
    sleep 2;
    my $port = $ports[$job % @ports];
    my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5);
    if (!$server) { print "worker: nobody answers on port $port just now\n"; next }
    print $server "GET / HTTP/1.0\r\n\r\n";
    my ($server_line) = grep { /^Served by/ } <$server>;
    print "worker: job $job done. ", $server_line // "No answer.\n";
}
print "worker: something went wrong in here (on purpose), I crash\n";
exit 1;
