// java Lock.java HOST PORT KEY WAIT WORK: waits for the key for WAIT milliseconds, works under it for WORK seconds
import java.io.*;
import java.net.*;
import java.util.concurrent.CompletableFuture;

class Lock {
    static void stop(int status, String text) {
        System.err.println(text);
        System.exit(status);
    }
    public static void main(String[] args) throws Exception {
        String key = args[2], beat = "fence " + key + "\r\n";
        var socket = new Socket(args[0], Integer.parseInt(args[1]));
        socket.setSoTimeout(Integer.parseInt(args[3]) + 10_000);
        var in = new BufferedReader(new InputStreamReader(socket.getInputStream()));
        var out = new PrintStream(socket.getOutputStream(), true); // without exceptions: the reader notices the end
        out.print("name Lock.java:" + ProcessHandle.current().pid() + "\r\nlock " + key + " " + args[3] + "\r\n" + beat);
        String named = in.readLine(), reply = in.readLine(), fence = in.readLine();
        if (fence == null || !fence.startsWith("f ")) stop(75, key + " is not locked: " + (reply == null ? "" : reply));
        socket.setSoTimeout(Integer.parseInt(named.split(" ")[2]) / 4); // of the time after which a silent client loses the key
        var holder = Thread.currentThread();
        var watching = CompletableFuture.supplyAsync(() -> {
            var answer = fence;
            try {
                while (fence.equals(answer)) // else the key is given back or lost
                    try { answer = in.readLine(); } catch (SocketTimeoutException e) { out.print(beat); answer = in.readLine(); }
            } catch (IOException e) { answer = null; }
            if (!"u unlocked".equals(answer)) holder.interrupt();
            return answer;
        });
        try {
            System.out.println("locked " + key + " with token " + fence.substring(2));
            Thread.sleep(Long.parseLong(args[4]) * 1000); // the work; it sends the token with all that it writes
        } finally {
            out.print("unlock " + key + "\r\n");
            if (!"u unlocked".equals(watching.join())) stop(76, "lost " + key);
        }
        System.out.println("unlocked " + key);
    }
}
